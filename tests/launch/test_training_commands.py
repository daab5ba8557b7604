"""Commands and config files of training frameworks, as their pages and repositories have them."""

import json
import shlex
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

from willfit.errors import BadInput
from willfit.launch.table import variables_before

DATA = Path(__file__).parent / "data" / "training"
PUBLISHED = [json.loads(line) for line in (DATA / "commands.jsonl").read_text(encoding="utf-8").splitlines()]


def read(framework, line, version=None):
    """What a framework's launcher reads in a command."""
    launcher = import_module(f"willfit.launch.training.{framework}")
    variables, words = variables_before(shlex.split(line))
    assert launcher.recognises(words)
    if getattr(launcher, "READS_VARIABLES", False):
        return launcher.parse(words, version, variables)
    return launcher.parse(words, version)


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
    launch = read(published["framework"], published["command"], published.get("version"))
    assert launch.engine == "training"
    assert launch.settings.framework == published["framework"]
    assert (launch.model, launch.devices) == (published["model"], published["devices"])
    assert launch.config == published.get("config")
    settings = {
        name: value for name, value in said(launch.settings).items() if name not in ("framework", "version")
    }
    assert settings == published["settings"]
    assert list(launch.notes) == published["notes"]


def test_there_are_commands_of_all_frameworks():
    counts = dict.fromkeys((one["framework"] for one in PUBLISHED), 0)
    for one in PUBLISHED:
        counts[one["framework"]] += 1
    assert set(counts) >= {"torchtune", "torchtitan", "megatron", "litgpt"}
    assert min(counts.values()) >= 6


@pytest.mark.parametrize(
    ("framework", "line", "words"),
    [
        ("torchtune", "tune run", "no recipe is named"),
        ("torchtune", "tune run lora_finetune_single_devices --config x", "did you mean lora_finetune_single_device?"),
        ("torchtune", "tune run generate --config generation", "generate trains nothing"),
        ("torchtune", "tune run lora_finetune_single_device", "--config argument is required"),
        ("torchtune", "tune run lora_finetune_single_device --config a.yaml", "a.yaml (--config) is not here"),
        (
            "torchtune",
            "tune run lora_finetune_single_device --config llama3_1/8B_lora_single",
            "did you mean llama3_1/8B_lora_single_device?",
        ),
        (
            "torchtune",
            "tune run --nproc_per_node 2 lora_finetune_single_device --config llama2/7B_lora_single_device",
            "does not support distributed training",
        ),
        (
            "torchtune",
            "tune run --nproc_per_nod 2 lora_finetune_distributed --config llama2/7B_lora",
            "did you mean --nproc-per-node?",
        ),
        (
            "torchtune",
            "tune run --nproc_per_node two lora_finetune_distributed --config llama2/7B_lora",
            "expected a whole number",
        ),
        (
            "torchtune",
            "tune run lora_finetune_single_device --config llama2/7B_lora_single_device batch_size=two",
            "batch_size is 'two', expected a whole number of at least 1",
        ),
        (
            "torchtune",
            "tune run lora_finetune_single_device --config llama2/7B_lora_single_device dtype=bf17",
            "there is no dtype bf17",
        ),
        (
            "torchtune",
            "tune run lora_finetune_single_device --config llama2/7B_lora_single_device batch_size",
            "not of the form key=value",
        ),
        (
            "torchtune",
            "tune run lora_finetune_single_device --config llama2/7B_lora_single_device ~model.lora_ranks",
            "not in the config",
        ),
        (
            "torchtune",
            "tune run lora_finetune_single_device --config llama2/7B_lora_single_device"
            " model=torchtune.models.llama2.lora_llama2_8b",
            "torchtune has no model lora_llama2_8b (did you mean llama",
        ),
        ("torchtune", "tune run full_finetune_single_device --config broken.yaml", "is not YAML"),
        ("torchtitan", "./run_train.sh --training.local_batch_sizes 2", "did you mean --training.local-batch-size?"),
        ("torchtitan", "MODULE=llama3 CONFIG=llama3_9b ./run_train.sh", "did you mean llama3_8b?"),
        ("torchtitan", "MODULE=qwen3 CONFIG=llama3_8b ./run_train.sh", "module qwen3 has no config llama3_8b"),
        ("torchtitan", "CONFIG_FILE=mine.toml ./run_train.sh", "mine.toml (--job.config_file) is not here"),
        ("torchtitan", "CONFIG_FILE=broken.toml ./run_train.sh", "is not TOML"),
        ("torchtitan", "NGPU=some MODULE=llama3 CONFIG=llama3_8b ./run_train.sh", "NGPU is 'some'"),
        ("torchtitan", "python -m torchtitan.train --module llama3", "--config is required"),
        (
            "torchtitan",
            "NGPU=8 MODULE=llama3 CONFIG=llama3_8b ./run_train.sh --parallelism.tensor_parallel_degree 3",
            "8 devices cannot be shared",
        ),
        (
            "torchtitan",
            "MODULE=llama3 CONFIG=llama3_8b ./run_train.sh --training.seq_len long",
            "--training.seq-len is 'long', expected a whole number",
        ),
        ("megatron", "torchrun pretrain_gpt.py --micro-batch-size 1", "--hidden-size, --num-attention-heads is required"),
        ("megatron", "torchrun pretrain_gpt.py --num-layer 2", "did you mean --num-layers?"),
        ("megatron", "torchrun pretrain_mamba.py --num-layers 2", "models of pretrain_mamba.py cannot be read"),
        (
            "megatron",
            "torchrun pretrain_gpt.py --num-layers 2 --hidden-size 64 --num-attention-heads 4",
            "--micro-batch-size is required",
        ),
        (
            "megatron",
            "torchrun --nproc_per_node 6 pretrain_gpt.py --num-layers 2 --hidden-size 64 --num-attention-heads 4"
            " --micro-batch-size 1 --tensor-model-parallel-size 4",
            "6 processes cannot be shared",
        ),
        (
            "megatron",
            "torchrun --nproc_per_node 8 pretrain_gpt.py --num-layers 2 --hidden-size 64 --num-attention-heads 4"
            " --micro-batch-size 3 --global-batch-size 16",
            "cannot be divided by 3 x 8",
        ),
        (
            "megatron",
            "torchrun pretrain_gpt.py --num-layers 2 --hidden-size 64 --num-attention-heads 4 --micro-batch-size 1"
            " --tokenizer-type HuggingFaceTokenizer --tokenizer-model /data/mine",
            "add --vocab-size N",
        ),
        (
            "megatron",
            "torchrun pretrain_gpt.py --num-layers 2 --hidden-size 64 --num-attention-heads 4 --micro-batch-size 1"
            " --num-experts 8 --moe-layer-freq ([1]*3)",
            "--moe-layer-freq has 3 layers, --num-layers is 2",
        ),
        (
            "megatron",
            "torchrun pretrain_gpt.py --num-layers 2 --hidden-size 64 --num-attention-heads 4 --micro-batch-size 1"
            " --num-experts 8 --moe-layer-freq ([1]*99999999)",
            "expected a pattern",
        ),
        ("litgpt", "litgpt finetune_lor x", "did you mean finetune_lora?"),
        ("litgpt", "litgpt chat x", "litgpt chat trains nothing"),
        ("litgpt", "litgpt finetune_lora", "no model is named"),
        ("litgpt", "litgpt finetune_lora x --quantize bnb.nf5", "there is no --quantize bnb.nf5"),
        ("litgpt", "litgpt finetune_lora x --quantize bnb.nf4 --devices 2", "not supported on several devices"),
        ("litgpt", "litgpt finetune_lora x --quantize bnb.nf4 --precision bf16-mixed", "mixed precision"),
        ("litgpt", "litgpt finetune_lora x --precision bf17-true", "there is no precision bf17-true"),
        ("litgpt", "litgpt finetune_lora --config mine.yaml", "mine.yaml (--config) is not here"),
        ("litgpt", "litgpt finetune_lora x --lora_rank 8", "did you mean --lora-"),
        ("litgpt", "litgpt finetune_lora --config wrong_key.yaml", "there is no key train.micro_batch"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(framework, line, words, tmp_path, monkeypatch):
    (tmp_path / "broken.yaml").write_text("batch_size: [1", encoding="utf-8")
    (tmp_path / "broken.toml").write_text("[training\n", encoding="utf-8")
    (tmp_path / "wrong_key.yaml").write_text("checkpoint_dir: x\ntrain:\n  micro_batch: 1\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as caught:
        read(framework, line)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_understood_is_named():
    launch = read(
        "torchtune",
        "tune run lora_finetune_single_device --config llama2/7B_lora_single_device custom_buffer_gib=4",
    )
    assert "custom_buffer_gib: 4 is not counted" in launch.notes
    launch = read("megatron", PUBLISHED_MEGATRON + " --retro-num-neighbors 2 --cuda-graph-impl local", "0.16.0")
    assert any("CUDA graphs (cuda_graph_impl)" in note for note in launch.notes)


PUBLISHED_MEGATRON = next(
    one["command"] for one in PUBLISHED if one["framework"] == "megatron" and "--recompute-activations" in one["command"]
)


def test_a_named_config_is_that_of_the_version():
    line = "tune run lora_finetune_single_device --config llama2/7B_lora_single_device"
    old, new = (read("torchtune", line, version).settings for version in ("0.1.1", "0.6.1"))
    assert (old.gradient_accumulation, new.gradient_accumulation) == (64, 8)
    assert (old.loss.kind, new.loss.kind) == ("hf", "chunked")
    assert read("torchtune", "tune run lora_finetune_single_device --config qwen3/14B_lora_single_device").notes[0] == (
        "qwen3/14B_lora_single_device is read as in torchtune 0.7.0, which has it"
    )


def test_a_described_model_has_the_parameters_of_the_published_one():
    from willfit.architectures.build import build
    from willfit.checkpoints.config import Config
    from willfit.checkpoints.catalogue import find

    deepseek = next(one for one in PUBLISHED if one["model"].startswith("deepseek_v3 of 61"))
    mixtral = next(one for one in PUBLISHED if one["model"].startswith("mixtral of 32"))
    for config, name in (
        (deepseek["config"], "deepseek-ai/DeepSeek-V3"),
        (mixtral["config"], "mistralai/Mixtral-8x7B-v0.1"),
    ):
        published = build(Config(find(name).config))
        assert build(Config(config)).parameters == published.parameters
