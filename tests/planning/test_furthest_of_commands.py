"""A knob in front of a launch command: with its furthest value the command fits, with the next one it does not."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from willfit.asking import answer_command, machine_of
from willfit.errors import BadInput
from willfit.surfaces.cli.app import main

LLAMA = "llama-server -m qwen3-30b-a3b-q4_k_m.gguf -c 16384 -ngl 99"


@pytest.mark.parametrize(
    ("knob", "gpu", "command", "flag", "further"),
    [
        ("context", "rtx4090", "vllm serve Qwen/Qwen3-8B --max-model-len 512 --kv-cache-dtype fp8",
         "--max-model-len", 1),
        ("max-num-seqs", "rtx4090", "vllm serve Qwen/Qwen3-8B --max-model-len 4096", "--max-num-seqs", 1),
        ("gpu-memory-utilization", "rtx4090", "vllm serve Qwen/Qwen3-4B --max-model-len 4096",
         "--gpu-memory-utilization", 0.01),
        ("tensor-parallel", "8xl40s", "vllm serve Qwen/Qwen3-32B -tp 8 --max-model-len 4096", "-tp", None),
        ("max-num-batched-tokens", "rtx4090", "sglang serve Qwen/Qwen3-8B --context-length 4096",
         "--chunked-prefill-size", 16),
        ("mem-fraction-static", "rtx4090", "sglang serve Qwen/Qwen3-8B --context-length 4096",
         "--mem-fraction-static", 0.01),
        ("tp-size", "4xl40s", "sglang serve Qwen/Qwen3-32B --context-length 4096", "--tp-size", None),
        ("max-batch-size", "a100-80g", "lmdeploy serve api_server Qwen/Qwen3-4B --session-len 4096",
         "--max-batch-size", 1),
        ("n-cpu-moe", "rtx3060", LLAMA, "--n-cpu-moe", -1),
        ("n-gpu-layers", "rtx3060", LLAMA, "-ngl", 1),
        ("context", "rtx3060", "llama-server -m qwen3-8b-q8_0.gguf -c 512 -ngl 99 -np 1", "-c", 256),
        ("batch", "rtx4090", "litgpt finetune_lora Qwen/Qwen3-1.7B --train.max_seq_length 1024",
         "--train.micro_batch_size", 1),
        ("seq-len", "rtx4090", "litgpt finetune_lora Qwen/Qwen3-1.7B --train.micro_batch_size 1",
         "--train.max_seq_length", 1),
    ],
)  # fmt: skip
def test_the_next_value_of_a_command_does_not_fit(capsys, knob, gpu, command, flag, further):
    main(["max", knob, "--offline", "--json", "--gpu", gpu, *shlex.split(command)])
    row = json.loads(capsys.readouterr().out)["rows"][0]

    def verdict(value: float) -> str:
        words = [*shlex.split(command), flag, f"{round(value, 4):g}"]
        return answer_command(words, machine_of(gpu), offline=True).estimate.verdict

    assert row["value"] is not None
    assert verdict(row["value"]) == "fits"
    following = row["value"] / 2 if further is None else row["value"] + further
    assert row["value"] == row["last"] or verdict(following) != "fits"


def test_users_of_llama_server_keep_their_context(capsys):
    """`-c` is shared out: with so many users, each still has the 4,096 tokens that the command gives each of two."""
    command = "llama-server -m qwen3-8b-q8_0.gguf -ngl 99"
    main(
        ["max", "users", "--offline", "--json", "--gpu", "rtx3060", *shlex.split(f"{command} -c 8192 -np 2")]
    )
    users = json.loads(capsys.readouterr().out)["rows"][0]["value"]
    for count, fits in ((users, True), (users + 1, False)):
        words = shlex.split(f"{command} -c {4096 * count} -np {count}")
        answer = answer_command(words, machine_of("rtx3060"), offline=True).estimate
        assert (answer.verdict == "fits") is fits


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "n-cpu-moe --gpu rtx4090 vllm serve Qwen/Qwen3-8B",
            "vllm has no n-cpu-moe .*its knobs: context, users, gpu",
        ),
        ("n-cpu-moe --gpu rtx4090 llama-server -m qwen3-8b-q8_0.gguf", "has no experts"),
        (
            "max-num-seqs --gpu rtx4090 llama-server -m qwen3-8b-q8_0.gguf",
            "its knobs: context, users, n-gpu-layers",
        ),
        ("rank --gpu rtx4090 vllm serve Qwen/Qwen3-8B", "there is no knob 'rank'"),
        ("users --gpu rtx4090 litgpt finetune_lora Qwen/Qwen3-1.7B", "known: batch, seq-len, rank"),
        ("context --gpu rtx4090 --context 4k vllm serve Qwen/Qwen3-8B", "does not go with a launch command"),
    ],
)
def test_knobs_that_a_command_does_not_have_are_refused(words, message):
    with pytest.raises(BadInput) as refused:
        main(["max", *words.split()])
    assert re.search(message, f"{refused.value.message} {refused.value.hint}")
