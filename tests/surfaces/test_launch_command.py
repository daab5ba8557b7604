"""`willfit launch` as a user runs it."""

import json
import shlex
from pathlib import Path

import program
import pytest
import yaml


def test_command_and_back() -> None:
    words = ("--gpu", "2xl40s", "--context", "16k", "--users", "8", "--offline")
    made = program.willfit("launch", "Qwen/Qwen3-8B", *words, "--engine", "vllm")
    assert made.returncode == 0, made.stderr
    comments = [line for line in made.stdout.splitlines() if line.startswith("#")]
    assert "2 x L40S" in comments[0]
    assert any(
        line.startswith("# --max-model-len 16384: the longest sequence asked for") for line in comments
    )
    command = shlex.split(made.stdout, comments=True)
    assert command[:3] == ["vllm", "serve", "Qwen/Qwen3-8B"]
    # Asked about again, it has the same estimate as the question had.
    again = program.willfit("--json", "--gpu", "2xl40s", *command)
    asked = program.willfit("Qwen/Qwen3-8B", *words, "--engine", "vllm", "--json")
    # The command does not say how many sequences there will be.
    sizes = [
        [[term["bytes"] for term in device["terms"]] for device in json.loads(one.stdout)["devices"]]
        for one in (again, asked)
    ]
    assert sizes[0] == sizes[1]


def test_json() -> None:
    made = program.willfit(
        "launch", "Qwen/Qwen3-8B", "--gpu", "rtx4090", "-e", "ollama", "--json", "--offline"
    )
    found = json.loads(made.stdout)
    assert found["words"][:2] == ["ollama", "create"]
    assert found["env"] == {"OLLAMA_NUM_PARALLEL": "1"}
    assert "PARAMETER num_ctx 8192" in found["files"]["Modelfile"]
    assert found["estimate"]["verdict"] == "fits"
    assert all(reason["reason"] for reason in found["reasons"])


def test_what_does_not_fit() -> None:
    made = program.willfit(
        "launch", "Qwen/Qwen3-32B", "--gpu", "2xl40s", "-c", "32k", "-u", "64", "-e", "vllm", "--offline"
    )
    assert made.returncode == 1
    assert made.stdout == ""
    assert made.stderr.count("\n") == 1
    assert "64 sequences of 32,768 tokens need 256.00 GiB of cache" in made.stderr
    assert "nearest: a context of" in made.stderr
    told = program.willfit(
        "launch",
        "Qwen/Qwen3-32B",
        "--gpu",
        "2xl40s",
        "-c",
        "32k",
        "-u",
        "64",
        "-e",
        "vllm",
        "--offline",
        "--json",
    )
    assert told.returncode == 1
    assert json.loads(told.stdout)["words"] is None


def test_other_forms() -> None:
    made = program.willfit(
        "launch", "Qwen/Qwen3-8B", "--gpu", "2xl40s", "-e", "sglang", "--as", "compose", "--offline"
    )
    service = yaml.safe_load(made.stdout)["services"]["sglang"]
    assert service["image"] == "lmsysorg/sglang:v0.5.23"
    made = program.willfit(
        "launch", "Qwen/Qwen3-8B", "--gpu", "l40s", "-e", "ollama", "--as", "modelfile", "--offline"
    )
    assert made.stdout.startswith("FROM ./Qwen3-8B-Q4_K_M.gguf\n")


def test_training(tmp_path: Path) -> None:
    words = ("--gpu", "8xh100", "--zero", "3", "-s", "4096", "-b", "2", "--offline")
    made = program.willfit("launch", "train", "Qwen/Qwen3-8B", *words, "--engine", "accelerate", "--json")
    found = json.loads(made.stdout)
    assert found["words"][:4] == ["accelerate", "launch", "--config_file", "accelerate.yaml"]
    path = tmp_path / "accelerate.yaml"
    path.write_text(found["files"]["accelerate.yaml"])
    command = [str(path) if word == path.name else word for word in found["words"]]
    again = json.loads(program.willfit("--json", "--gpu", "8xh100", *command).stdout)
    assert [one["peak_bytes"] for one in again["devices"]] == [
        one["peak_bytes"] for one in found["estimate"]["devices"]
    ]
    file = program.willfit(
        "--offline", "launch", "train", "Qwen/Qwen3-8B", *words, "-e", "deepspeed", "--as", "json"
    )
    assert json.loads(file.stdout)["zero_optimization"] == {"stage": 3}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("launch",), "MODEL"),
        (("launch", "Qwen/Qwen3-8B", "--gpu", "h100", "-e", "mlx", "--offline"), "no command is written for mlx"),
        (("launch", "Qwen/Qwen3-8B", "--gpu", "h100", "-e", "vllm", "--as", "modelfile", "--offline"),
         "vllm has no modelfile beside its command (known: command, compose, kubernetes)"),
        (("launch", "Qwen/Qwen3-8B", "--gpu", "h100", "-f", "awq", "-e", "vllm", "--offline"), "vLLM cannot make awq"),
        (("launch", "train", "Qwen/Qwen3-0.6B", "--gpu", "h100", "-e", "megatron", "--offline"),
         "no launcher 'megatron'"),
        (("launch", "train", "Qwen/Qwen3-0.6B", "--gpu", "h100", "--as", "compose", "--offline"), "command alone"),
        (("launch", "train", "Qwen/Qwen3-0.6B", "--gpu", "h100", "--objective", "ppo", "--offline"), "objective ppo"),
    ],
)  # fmt: skip
def test_one_clear_line(words: tuple[str, ...], why: str) -> None:
    made = program.willfit(*words)
    assert made.returncode == 2
    assert why in made.stderr
    assert made.stderr.count("\n") == 1


def test_help() -> None:
    assert "launch train MODEL" in " ".join(program.willfit("launch", "--help").stdout.split())
    told = program.willfit("launch", "train", "--help").stdout
    assert "the launcher: torchrun, accelerate, deepspeed" in " ".join(told.split())
    assert "usage: willfit launch train" in told
    assert "launch" in program.willfit("--help").stdout
