"""The recorded steps are those of the installed PyTorch and transformers, to the byte."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
#: What `set_up.sh` makes.
ADAPTERS = ROOT / ".oracle-training"
LINES = {line["name"]: line for line in map(json.loads, (ROOT / "tests/data/training_traces.jsonl").open())}

#: Traced anew: each has something that the others have not.
PLAIN = (
    "llama bf16", "llama fp32 checkpointed", "llama amp reentrant", "llama bf16 padded", "gpt2 bf16", "mixtral amp",
    "deepseek_v3 bf16 flash_attention_2", "qwen3_next bf16", "falcon bf16 checkpointed",
)  # fmt: skip
ADAPTED = ("llama bf16 lora dropout", "llama amp dora", "llama bf16 prefix", "gpt2 lora")

has_adapters = ADAPTERS.exists() or importlib.util.find_spec("peft") is not None


def traces(function: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that runs steps."""
    for mark in (
        pytest.mark.oracle,
        pytest.mark.skipif(
            sys.platform != "linux", reason="the shims know PyTorch's libraries on Linux only"
        ),
        pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="in one run only: `.ci/run oracle`"),
    ):
        function = mark(function)
    return function


def run(program: str, scenario: dict[str, Any]) -> dict[str, Any]:
    """What a program of this folder says to a scenario."""
    found = [path for path in (os.environ.get("PYTHONPATH"), str(ADAPTERS)) if path]
    done = subprocess.run(
        [sys.executable, str(HERE / program)],
        input=json.dumps(scenario),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(found)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def said(name: str) -> dict[str, Any]:
    """The scenario of a recorded line."""
    return {key: LINES[name][key] for key in ("name", "model", "settings", "also") if key in LINES[name]}


@traces
@pytest.mark.parametrize("name", PLAIN)
def test_recorded(name: str) -> None:
    assert run("worker.py", said(name)) == LINES[name]


@traces
@pytest.mark.skipif(not has_adapters, reason="no .oracle-training: `.ci/run oracle` makes it")
@pytest.mark.parametrize("name", ADAPTED)
def test_recorded_with_adapters(name: str) -> None:
    assert run("worker.py", said(name)) == LINES[name]


@traces
@pytest.mark.parametrize("name", ["llama fp32", "llama amp", "llama bf16 checkpointed"])
def test_tracer_sees_what_the_profiler_sees(name: str) -> None:
    # On the CPU, where a step can run. The profiler also sees a few scalars inside kernels, and the state of the
    # random numbers that a checkpoint keeps.
    peaks = run("against_profiler.py", said(name))
    assert peaks["fake"] == peaks["real"]
    assert 0 <= peaks["profiler"] - peaks["real"] <= 64


def test_a_layer_keeps_what_is_counted_by_hand() -> None:
    # Two norms: input in float32, its inverse deviation, itself normalized, and with weights; queries, keys and values;
    # log-sum-exps and the output; gate, its activation, up and their product; 24 bytes of random state.
    h, f, heads, query, key, tokens = 176, 464, 8, 8 * 24, 2 * 24, 2 * 144
    norms = 2 * (4 * h + 4 + 2 * h + 2 * h)
    kept = norms + 2 * (query + 2 * key) + 2 * query + 4 * heads + 4 * 2 * f
    assert LINES["llama bf16"]["saved"]["regions"]["model.layers.1"] == kept * tokens + 24


def test_lines_are_of_the_scenarios() -> None:
    program = "import json, scenarios; print(json.dumps(scenarios.all_scenarios()))"
    listed = subprocess.run([sys.executable, "-c", program], cwd=HERE, capture_output=True, check=True)
    assert [said(name) for name in LINES] == json.loads(listed.stdout)
