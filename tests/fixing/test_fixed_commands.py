"""A fixed command fits when it is read again, no edit of it can be left out, and none goes further than it must."""

from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from willfit.asking import answer_command, machine_of
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.fixing.command import Fixed, fix_command
from willfit.launch.editing.changes import Change
from willfit.launch.editing.edit import Edited, edited
from willfit.launch.editing.files import standing_in
from willfit.surfaces.cli.app import main


def asked_again(made: Edited, gpu: str, users: int = 1) -> Estimate | None:
    """What a command takes, typed anew; None if it is refused."""
    with standing_in(made.words, made.file, made.text) as words:
        try:
            return answer_command(
                shlex.split(shlex.join(words)), machine_of(gpu), users, offline=True
            ).estimate
        except BadInput:
            return None


def check(command: str, gpu: str, users: int = 1) -> Fixed:
    """Fix a command, and hold every way to what it promises."""
    words = shlex.split(command)
    found = fix_command(words, machine_of(gpu), users, offline=True)

    def verdict(changes: list[Change]) -> str:
        answer = asked_again(edited(words, changes), gpu, users)
        return "refused" if answer is None else answer.verdict

    assert (found.estimate.verdict == "fits") == (found.binding is None)
    if found.binding is None:
        assert not found.remade
    for one in found.remade:
        again = asked_again(one.edited, gpu, users)
        assert again is not None
        assert again.verdict == "fits", one.edited.words
        edits = one.way.edits
        for index, edit in enumerate(edits):
            others = [*edits[:index], *edits[index + 1 :]]
            without = [change for other in others for change in other.changes]
            assert verdict(without) != "fits", (edit.candidate.name, one.edited.words)
            values = edit.candidate.values
            for step in (edit.step - 1, edit.step + 1):
                if 1 <= step <= len(values) and edit.candidate.loss(values[step - 1]) < edit.loss:
                    further = edit.candidate.changes(values[step - 1])
                    assert verdict([*without, *further]) != "fits", (edit.candidate.name, one.edited.words)
    return found


SERVED = ("Qwen/Qwen3-8B", "google/gemma-3-12b-it", "Qwen/Qwen3-30B-A3B", "deepseek-ai/DeepSeek-V2-Lite")
GPUS = ("rtx3090", "rtx4090", "2xl40s", "a100-40g", "20GiB")


@settings(max_examples=15)
@given(
    st.sampled_from(SERVED), st.sampled_from(GPUS), st.sampled_from((4096, 32768, 131072)), st.sampled_from((1, 4, 16)),
    st.sampled_from(("", "--enforce-eager", "--gpu-memory-utilization=0.98", "--max-num-seqs 1024", "--dtype auto")),
)  # fmt: skip
def test_commands_of_vllm_fit_afterwards(model, gpu, context, users, more):
    check(f"vllm serve {model} --max_model_len {context} {more}", gpu, users)


@settings(max_examples=15)
@given(
    st.sampled_from(SERVED), st.sampled_from(GPUS), st.sampled_from((4096, 32768, 131072)), st.sampled_from((1, 4, 16)),
    st.sampled_from(("", "--mem-fraction-static 0.95", "--disable-cuda-graph", "--chunked-prefill-size 16384")),
)  # fmt: skip
def test_commands_of_sglang_fit_afterwards(model, gpu, context, users, more):
    check(f"python -m sglang.launch_server --model {model} --context-length={context} {more}", gpu, users)


@settings(max_examples=5, deadline=None)
@given(
    st.sampled_from(("qwen3-14b-q8_0", "qwen3-30b-a3b-q4_k_m", "gemma-3-12b-it-q8_0")),
    st.sampled_from(("rtx3060", "rtx4060ti-16g", "2xrtx3060")),
    st.sampled_from((8192, 40960)),
    st.sampled_from(("-ngl 99", "-ngl 99 -fa off", "-ngl 99 -ub 2048 -np 2", "-ngl 99 -ctk q8_0 -ctv q8_0")),
)
def test_commands_of_llama_server_fit_afterwards(model, gpu, context, more):
    check(f"llama-server -m {model}.gguf -c {context} {more}", gpu)


@pytest.mark.parametrize(
    ("command", "gpu"),
    [
        ("text-generation-launcher --model-id Qwen/Qwen3-8B --max-total-tokens 40960 --max-input-tokens 40000",
         "rtx4090"),
        ("lmdeploy serve api_server Qwen/Qwen3-8B --session-len 40960", "rtx4090"),
        ("trtllm-serve Qwen/Qwen3-8B --max_seq_len 32768", "rtx4090"),
        ("python -m lightllm.server.api_server --model_dir Qwen/Qwen3-8B --max_req_total_len 32768", "rtx4090"),
        ("koboldcpp --model qwen3-14b-q8_0.gguf --contextsize 32768 --gpulayers 99", "rtx3060"),
        ("python -m llama_cpp.server --model qwen3-14b-q8_0.gguf --n_ctx 32768 --n_gpu_layers -1", "rtx3060"),
        ("lms load qwen/qwen3-14b --context-length 32768 --gpu max", "rtx3060"),
        ("docker run --gpus all vllm/vllm-openai:v0.11.0 --model Qwen/Qwen3-8B", "rtx4090"),
        ("docker run x bash -c 'vllm serve Qwen/Qwen3-8B --max-model-len 40960 > log'", "rtx4090"),
        ("torchrun --nproc-per-node 2 run_clm.py --model_name_or_path Qwen/Qwen3-4B --block_size 4096 --bf16 "
         "--per_device_train_batch_size 8", "2xh100"),
        ("deepspeed --num_gpus 2 run_clm.py --model_name_or_path Qwen/Qwen3-4B --block_size 2048 --bf16 "
         "--per_device_train_batch_size 8", "2xh100"),
        ("accelerate launch --num_processes 1 sft.py --model_name_or_path Qwen/Qwen3-8B --dataset_name x --bf16 "
         "--per_device_train_batch_size 8 --gradient_accumulation_steps 2 --max_length 2048 --use_peft", "rtx4090"),
        ("trl sft --model_name_or_path Qwen/Qwen3-8B --per_device_train_batch_size 2 --max_length 4096", "2xh100"),
        ("swift sft --model Qwen/Qwen3-8B --per_device_train_batch_size 16 --max_length 4096", "rtx4090"),
        ("litgpt finetune_lora meta-llama/Llama-3.1-8B --train.micro_batch_size 16", "rtx4090"),
        ("tune run lora_finetune_single_device --config llama3_1/8B_lora_single_device batch_size=16", "rtx4090"),
    ],
)  # fmt: skip
def test_a_command_of_each_program_is_made_to_fit(command, gpu):
    assert check(command, gpu).remade


FILES = {
    "v.yaml": "model: Qwen/Qwen3-8B\nmax-model-len: 32768 # long\nkv-cache-dtype: fp8\nquantization: fp8\n"
    "gpu_memory_utilization: 0.6\n",
    "axolotl.yml": "base_model: Qwen/Qwen3-8B\nadapter: lora\nlora_r: 16\nlora_target_linear: true\nbf16: true\n"
    "micro_batch_size: 16\nsequence_len: 4096\n",
    "lf.yaml": "model_name_or_path: Qwen/Qwen3-8B\nstage: sft\nfinetuning_type: lora\ntemplate: qwen\nbf16: true\n"
    "cutoff_len: 4096\nper_device_train_batch_size: 32\n",
    "args.json": '{"model_name_or_path": "Qwen/Qwen3-4B", "per_device_train_batch_size": 16, "block_size": 4096, '
    '"bf16": true, "output_dir": "o"}',
    "Modelfile": "FROM qwen3:14b\nPARAMETER num_ctx 131072\nPARAMETER num_gpu 99\n",
}


@pytest.mark.parametrize(
    ("name", "command", "gpu"),
    [
        ("v.yaml", "vllm serve --config v.yaml", "rtx4090"),
        ("axolotl.yml", "axolotl train axolotl.yml", "a100-80g"),
        ("lf.yaml", "llamafactory-cli train lf.yaml", "rtx4090"),
        ("args.json", "python run_clm.py args.json", "h100"),
        ("Modelfile", "ollama create x", "rtx3060"),
    ],
)
def test_settings_in_a_file_are_changed_there(tmp_path, monkeypatch, name, command, gpu):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(FILES[name])
    best = check(command, gpu).remade[0]
    assert best.edited.text is not None
    assert (tmp_path / name).read_text() == FILES[name]


def test_the_sequences_of_a_step_stay_as_many():
    command = (
        "accelerate launch --num_processes 1 sft.py --model_name_or_path Qwen/Qwen3-8B --dataset_name x --bf16 "
        "--per_device_train_batch_size 8 --gradient_accumulation_steps 3 --max_length 2048 --use_peft"
    )
    best = check(command, "rtx4090").remade[0].edited.words
    said = {
        flag: int(best[best.index(flag) + 1])
        for flag in ("--per_device_train_batch_size", "--gradient_accumulation_steps")
    }
    assert said["--per_device_train_batch_size"] < 8
    assert said["--per_device_train_batch_size"] * said["--gradient_accumulation_steps"] == 8 * 3


def test_a_flag_that_the_version_lacks_is_not_offered():
    """vLLM has `--cpu-offload-gb` since 0.5.4, and `fp8` for the cache since 0.3.3 alone."""
    found = fix_command(
        shlex.split("vllm serve Qwen/Qwen3-8B"), machine_of("rtx3060"), version="0.5.0", offline=True
    )
    names = {edit.candidate.name for one in found.remade for edit in one.way.edits}
    assert "--cpu-offload-gb" not in names


def run(capsys, *words: str) -> tuple[int, str]:
    status = main(["fix", "--offline", *words])
    return status, capsys.readouterr().out


def test_exits_tell_what_fits_what_does_not_and_what_is_wrong(capsys):
    status, text = run(capsys, "--gpu", "rtx4090", "vllm", "serve", "Qwen/Qwen3-0.6B")
    assert (status, "fits as it is" in text, "+" in text) == (0, True, False)
    status, text = run(
        capsys, "--gpu", "rtx4090", "vllm", "serve", "Qwen/Qwen3-8B", "--max-model-len", "40960"
    )
    assert status == 1
    assert " - vllm serve Qwen/Qwen3-8B --max-model-len 40960\n + vllm serve Qwen/Qwen3-8B" in text
    status, text = run(capsys, "--gpu", "8GiB", "vllm", "serve", "meta-llama/Llama-3.3-70B-Instruct")
    assert status == 1
    assert "the weights alone take 131.4" in " ".join(text.split())
    assert "No edit of the command makes it fit." in text
    for words, message in (
        (("--gpu", "rtx4090"), "no launch command was given"),
        (("--gpu", "rtx4090", "Qwen/Qwen3-8B"), "is no command"),
        (("--gpu", "rtx4090", "vllm", "serve", "Qwen/Qwen3-8B", "--no-such-flag"), "no flag"),
        (("--gpu", "rtx4090", "mlx_lm.server", "--model", "Qwen/Qwen3-32B"), "no edits are known"),
    ):
        with pytest.raises(BadInput, match=message):
            main(["fix", "--offline", *words])


def test_more_devices_or_another_format_are_named_where_no_edit_helps(capsys):
    command = "vllm serve meta-llama/Llama-3.1-405B --max-model-len 4096"
    status, text = run(capsys, "--json", "--gpu", "h100", *shlex.split(command))
    found = json.loads(text)
    assert (status, found["fixes"]) == (1, [])
    count, format_name = 16, "fp8"
    assert found["nearest"][0] == f"{count} × H100 SXM5 80GB instead of 1"
    assert f"a checkpoint in {format_name}" in found["nearest"][1]
    for gpus, fits in ((count, True), (count // 2, False)):
        words = shlex.split(f"{command} -tp {gpus}")
        verdict = answer_command(words, machine_of(f"{gpus}xh100"), offline=True).estimate.verdict
        assert (verdict == "fits") is fits


def test_edits_as_data(capsys):
    status, text = run(
        capsys,
        "--json",
        "--gpu",
        "2xl40s",
        "vllm",
        "serve",
        "Qwen/Qwen3-32B",
        "-tp=1",
        "--max-model-len",
        "32768",
    )
    found = json.loads(text)
    best = found["fixes"][0]
    assert (status, found["verdict"], best["verdict"]) == (1, "does_not_fit", "fits")
    assert best["command"] == ["vllm", "serve", "Qwen/Qwen3-32B", "-tp=2", "--max-model-len", "32768"]
    assert (best["removed"], best["added"]) == (["-tp=1"], ["-tp=2"])
    assert best["edits"] == [
        {"name": "--tensor-parallel-size", "value": 2, "cost": "2 devices are used instead of 1"}
    ]
    assert found["command"][3] == "-tp=1"
    assert found["binding"]["kind"] in ("pool", "device")
