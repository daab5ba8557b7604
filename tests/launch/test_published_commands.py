"""Commands as engines' pages, recipes and issues have them: none of their flags may be refused."""

import json
import shlex
from pathlib import Path

import pytest

from willfit.launch.table import parse_command

COMMANDS = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "commands.jsonl").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize("published", COMMANDS, ids=lambda one: one["command"][:60])
def test_a_published_command_says_what_a_reader_reads_in_it(published):
    launch = parse_command(shlex.split(published["command"]))
    assert (launch.engine, launch.model) == (published["engine"], published["model"])
    assert launch.format_name == published.get("format")
    assert launch.devices == published.get("devices")
    for name, value in published["settings"].items():
        assert getattr(launch.settings, name) == _without_lists(value), name


def _without_lists(value):
    return tuple(map(_without_lists, value)) if isinstance(value, list) else value


def test_there_are_commands_of_all_engines():
    names = (
        "vllm", "sglang", "tensorrt-llm", "tgi", "lmdeploy", "lightllm", "llama.cpp", "ollama", "lmstudio",
    )  # fmt: skip
    counts = dict.fromkeys(names, 0)
    for one in COMMANDS:
        counts[one["engine"]] += 1
    assert sum(counts.values()) >= 120
    assert counts["llama.cpp"] >= 60
    assert min(counts.values()) >= 4
