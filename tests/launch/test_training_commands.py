"""Commands and config files of training frameworks, as their pages and repositories have them."""

import json
import shlex
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import pytest

from willfit.errors import BadInput
from willfit.launch.table import parse_command

DATA = Path(__file__).parent / "data" / "training"
PUBLISHED = [json.loads(line) for line in (DATA / "commands.jsonl").read_text(encoding="utf-8").splitlines()]


def read(line, version=None):
    """What is read in a command, as someone would give it."""
    return parse_command(shlex.split(line), version)


def said(record):
    """The fields of a record that are not as they are where nothing is said."""
    if is_dataclass(record):
        found = {}
        for field in fields(record):
            default = field.default if field.default is not MISSING else MISSING
            if field.default_factory is not MISSING:
                default = field.default_factory()
            if (value := getattr(record, field.name)) != default:
                found[field.name] = said(value)
        return found
    if isinstance(record, tuple):
        return [said(one) for one in record]
    return {key: said(value) for key, value in record.items()} if isinstance(record, dict) else record


@pytest.fixture(autouse=True)
def in_the_folder_of_the_files(monkeypatch):
    monkeypatch.chdir(DATA)


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda one: one["command"][:70])
def test_a_published_command_says_what_a_reader_reads_in_it(published):
    launch = read(published["command"], published.get("version"))
    assert launch.engine == "training"
    assert launch.settings.framework == published["framework"]
    assert (launch.model, launch.devices) == (published["model"], published["devices"])
    assert launch.config == published.get("config")
    settings = said(launch.settings)
    settings.pop("framework", None)
    if "version" in published:
        versions = launch.settings.version, launch.settings.versions.get("ms-swift")
        assert published["version"] in versions
    assert settings == published["settings"]
    assert list(launch.notes) == published["notes"]


def test_there_are_commands_of_all_frameworks():
    counts = dict.fromkeys((one["framework"] for one in PUBLISHED), 0)
    for one in PUBLISHED:
        counts[one["framework"]] += 1
    assert set(counts) == {
        "torchtune", "torchtitan", "megatron", "litgpt", "llamafactory", "axolotl", "ms-swift",
    }  # fmt: skip
    assert min(counts.values()) >= 6


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tune run", "no recipe is named"),
        ("tune run lora_finetune_single_devices --config x", "did you mean lora_finetune_single_device?"),
        ("tune run generate --config generation", "generate trains nothing"),
        ("tune run lora_finetune_single_device", "--config argument is required"),
        ("tune run lora_finetune_single_device --config a.yaml", "a.yaml (--config) is not here"),
        (
            "tune run lora_finetune_single_device --config llama3_1/8B_lora_single",
            "did you mean llama3_1/8B_lora_single_device?",
        ),
        (
            "tune run --nproc_per_node 2 lora_finetune_single_device --config llama2/7B_lora_single_device",
            "does not support distributed training",
        ),
        (
            "tune run --nproc_per_nod 2 lora_finetune_distributed --config llama2/7B_lora",
            "did you mean --nproc-per-node?",
        ),
        (
            "tune run --nproc_per_node two lora_finetune_distributed --config llama2/7B_lora",
            "expected a whole number",
        ),
        (
            "tune run lora_finetune_single_device --config llama2/7B_lora_single_device batch_size=two",
            "batch_size is 'two', expected a whole number of at least 1",
        ),
        (
            "tune run lora_finetune_single_device --config llama2/7B_lora_single_device dtype=bf17",
            "there is no dtype bf17",
        ),
        (
            "tune run lora_finetune_single_device --config llama2/7B_lora_single_device batch_size",
            "not of the form key=value",
        ),
        (
            "tune run lora_finetune_single_device --config llama2/7B_lora_single_device ~model.lora_ranks",
            "not in the config",
        ),
        (
            "tune run lora_finetune_single_device --config llama2/7B_lora_single_device"
            " model=torchtune.models.llama2.lora_llama2_8b",
            "torchtune has no model lora_llama2_8b (did you mean llama",
        ),
        ("tune run full_finetune_single_device --config broken.yaml", "is not YAML"),
        ("./run_train.sh --training.local_batch_sizes 2", "did you mean --training.local-batch-size?"),
        ("MODULE=llama3 CONFIG=llama3_9b ./run_train.sh", "did you mean llama3_8b?"),
        ("MODULE=qwen3 CONFIG=llama3_8b ./run_train.sh", "module qwen3 has no config llama3_8b"),
        ("CONFIG_FILE=mine.toml ./run_train.sh", "mine.toml (--job.config_file) is not here"),
        ("CONFIG_FILE=broken.toml ./run_train.sh", "is not TOML"),
        ("NGPU=some MODULE=llama3 CONFIG=llama3_8b ./run_train.sh", "NGPU is 'some'"),
        ("python -m torchtitan.train --module llama3", "--config is required"),
        (
            "NGPU=8 MODULE=llama3 CONFIG=llama3_8b ./run_train.sh --parallelism.tensor_parallel_degree 3",
            "8 devices cannot be shared",
        ),
        (
            "MODULE=llama3 CONFIG=llama3_8b ./run_train.sh --training.seq_len long",
            "--training.seq-len is 'long', expected a whole number",
        ),
        ("torchrun pretrain_gpt.py --micro-batch-size 1", "--hidden-size, --num-attention-heads is required"),
        ("torchrun pretrain_gpt.py --num-layer 2", "did you mean --num-layers?"),
        ("torchrun pretrain_mamba.py --num-layers 2", "models of pretrain_mamba.py cannot be read"),
        (
            "torchrun pretrain_gpt.py --num-layers 2 --hidden-size 64 --num-attention-heads 4",
            "--micro-batch-size is required",
        ),
        (
            "torchrun --nproc_per_node 6 pretrain_gpt.py --num-layers 2 --hidden-size 64 --num-attention-heads 4"
            " --micro-batch-size 1 --tensor-model-parallel-size 4",
            "6 processes cannot be shared",
        ),
        (
            "torchrun --nproc_per_node 8 pretrain_gpt.py --num-layers 2 --hidden-size 64 --num-attention-heads 4"
            " --micro-batch-size 3 --global-batch-size 16",
            "cannot be divided by 3 x 8",
        ),
        (
            "torchrun pretrain_gpt.py --num-layers 2 --hidden-size 64 --num-attention-heads 4 --micro-batch-size 1"
            " --tokenizer-type HuggingFaceTokenizer --tokenizer-model /data/mine",
            "add --vocab-size N",
        ),
        (
            "torchrun pretrain_gpt.py --num-layers 2 --hidden-size 64 --num-attention-heads 4 --micro-batch-size 1"
            " --num-experts 8 --moe-layer-freq ([1]*3)",
            "--moe-layer-freq has 3 layers, --num-layers is 2",
        ),
        (
            "torchrun pretrain_gpt.py --num-layers 2 --hidden-size 64 --num-attention-heads 4 --micro-batch-size 1"
            " --num-experts 8 --moe-layer-freq ([1]*99999999)",
            "expected a pattern",
        ),
        ("litgpt finetune_lor x", "did you mean finetune_lora?"),
        ("litgpt chat x", "litgpt chat trains nothing"),
        ("litgpt finetune_lora", "no model is named"),
        ("litgpt finetune_lora x --quantize bnb.nf5", "there is no --quantize bnb.nf5"),
        ("litgpt finetune_lora x --quantize bnb.nf4 --devices 2", "not supported on several devices"),
        ("litgpt finetune_lora x --quantize bnb.nf4 --precision bf16-mixed", "mixed precision"),
        ("litgpt finetune_lora x --precision bf17-true", "there is no precision bf17-true"),
        ("litgpt finetune_lora --config mine.yaml", "mine.yaml (--config) is not here"),
        ("litgpt finetune_lora x --lora_rank 8", "did you mean --lora-"),
        ("litgpt finetune_lora --config wrong_key.yaml", "there is no key train.micro_batch"),
        ("llamafactory-cli chat x.yaml", "llamafactory-cli chat trains nothing"),
        ("llamafactory-cli train mine.yaml", "mine.yaml is not here"),
        ("llamafactory-cli train broken.yaml", "is not YAML"),
        ("llamafactory-cli train unknown.yaml", "there is no key lora_rnk (did you mean lora_rank?)"),
        ("llamafactory-cli train known.yaml lora_rank=many", "lora_rank is 'many', expected a whole number"),
        ("llamafactory-cli train known.yaml lora_rank", "is not of the form key=value"),
        ("llamafactory-cli train known.yaml quantization_bit=3", "bitsandbytes has 4 and 8"),
        (
            "llamafactory-cli train known.yaml quantization_bit=4 finetuning_type=full",
            "is for LoRA or OFT only",
        ),
        ("llamafactory-cli train known.yaml finetuning_type=lokr", "there is no finetuning_type lokr"),
        ("llamafactory-cli train known.yaml deepspeed=ds_z4.json", "ds_z4.json (deepspeed) is not here"),
        ("llamafactory-cli train known.yaml fsdp=half_shard", "fsdp has no option half_shard"),
        ("NPROC_PER_NODE=x llamafactory-cli train known.yaml", "NPROC_PER_NODE is 'x'"),
        ("llamafactory-cli train empty.yaml", "model_name_or_path is required"),
        ("axolotl trian x.yml", "did you mean train?"),
        ("axolotl inference x.yml", "axolotl inference trains nothing"),
        ("axolotl train", "one config is needed"),
        ("axolotl train mine.yml", "mine.yml is not here"),
        ("axolotl train empty.yaml", "base_model is required"),
        ("axolotl train axolotl.yaml --micro-batch-size two", "expected a whole number"),
        ("axolotl train axolotl.yaml --micro-batch-sizes 2", "did you mean --micro-batch-size?"),
        ("axolotl train axolotl.yaml", "adapter lora needs lora_r"),
        ("swift infer --model x", "swift infer trains nothing"),
        ("swift sft --modle x", "did you mean --model?"),
        ("swift sft --dataset x", "no model is named"),
        ("swift sft --model_type qwen2-7b-instuct", "did you mean qwen2-7b-instruct?"),
        ("swift sft --model a/b --lora_rank x", "expected a whole number"),
        ("swift sft --model a/b --deepspeed zero4", "zero4 (deepspeed) is not here"),
        ("swift sft mine.yaml", "mine.yaml is not here"),
        ("NPROC_PER_NODE=2 megatron sft --model a/b --tensor_model_parallel_size 4", "cannot be shared"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(line, words, tmp_path, monkeypatch):
    (tmp_path / "broken.yaml").write_text("batch_size: [1", encoding="utf-8")
    (tmp_path / "broken.toml").write_text("[training\n", encoding="utf-8")
    (tmp_path / "wrong_key.yaml").write_text(
        "checkpoint_dir: x\ntrain:\n  micro_batch: 1\n", encoding="utf-8"
    )
    (tmp_path / "unknown.yaml").write_text("model_name_or_path: a/b\nlora_rnk: 8\n", encoding="utf-8")
    (tmp_path / "known.yaml").write_text("model_name_or_path: a/b\n", encoding="utf-8")
    (tmp_path / "empty.yaml").write_text("", encoding="utf-8")
    (tmp_path / "axolotl.yaml").write_text("base_model: a/b\nadapter: lora\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as caught:
        read(line)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_understood_is_named():
    launch = read(
        "tune run lora_finetune_single_device --config llama2/7B_lora_single_device custom_buffer_gib=4",
    )
    assert "custom_buffer_gib: 4 is not counted" in launch.notes
    launch = read(PUBLISHED_MEGATRON + " --retro-num-neighbors 2 --cuda-graph-impl local", "0.16.0")
    assert any("CUDA graphs (cuda_graph_impl)" in note for note in launch.notes)


def test_a_key_that_axolotl_does_not_have_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.yml").write_text("base_model: a/b\nsequence_length: 2048\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    launch = read("axolotl train a.yml")
    assert any("sequence_length" in note and "sequence_len" in note for note in launch.notes)


@pytest.mark.parametrize(
    ("before", "devices"),
    [
        ("nohup", None), ("CUDA_VISIBLE_DEVICES=0,1", 2), ("env NPROC_PER_NODE=4 NNODES=2", 8),
        ("conda run -n x", None), ("docker run --gpus all image:tag", None),
    ],
)  # fmt: skip
def test_what_stands_in_front_is_read(before, devices):
    launch = read(f"{before} swift sft --model Qwen/Qwen2.5-7B --torch_dtype bfloat16")
    assert (launch.engine, launch.model, launch.devices) == ("training", "Qwen/Qwen2.5-7B", devices)


PUBLISHED_MEGATRON = next(
    one["command"]
    for one in PUBLISHED
    if one["framework"] == "megatron" and "--recompute-activations" in one["command"]
)


def test_a_named_config_is_that_of_the_version():
    line = "tune run lora_finetune_single_device --config llama2/7B_lora_single_device"
    old, new = (read(line, version).settings for version in ("0.1.1", "0.6.1"))
    assert (old.gradient_accumulation, new.gradient_accumulation) == (64, 8)
    assert (old.loss.kind, new.loss.kind) == ("hf", "chunked")
    assert read("tune run lora_finetune_single_device --config qwen3/14B_lora_single_device").notes[0] == (
        "qwen3/14B_lora_single_device is read as in torchtune 0.7.0, which has it"
    )


def test_a_described_model_has_the_parameters_of_the_published_one():
    from willfit.architectures.build import build
    from willfit.checkpoints.catalogue import find
    from willfit.checkpoints.config import Config

    deepseek = next(one for one in PUBLISHED if one["model"].startswith("deepseek_v3 of 61"))
    mixtral = next(one for one in PUBLISHED if one["model"].startswith("mixtral of 32"))
    for config, name in (
        (deepseek["config"], "deepseek-ai/DeepSeek-V3"),
        (mixtral["config"], "mistralai/Mixtral-8x7B-v0.1"),
    ):
        published = build(Config(find(name).config))
        assert build(Config(config)).parameters == published.parameters
