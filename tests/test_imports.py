"""What starting the program loads: nothing heavy before it is needed."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "click",
    "httpx",
    "huggingface_hub",
    "numpy",
    "psutil",
    "pyarrow",
    "pydantic",
    "pynvml",
    "ray",
    "requests",
    "rich",
    "torch",
    "transformers",
    "typer",
    "yaml",
}
#: Of the standard library, what takes milliseconds and is for other paths.
SLOW = {
    "asyncio",
    "difflib",
    "email",
    "http",
    "importlib.metadata",
    "importlib.resources",
    "ssl",
    "subprocess",
}

PROBE = """
import json, sys
from willfit.surfaces.cli import run
try:
    run()
except SystemExit as leaving:
    status = leaving.code
print(json.dumps([status, sorted(sys.modules)]), file=sys.stderr)
"""


def loaded(*words):
    """Exit status of `willfit WORDS...`, and the modules that it had loaded in the end."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words],
        capture_output=True,
        text=True,
        check=True,
    )
    status, modules = json.loads(done.stderr.splitlines()[-1])
    return status, set(modules), done.stdout


def test_an_answer_as_json_loads_nothing_heavy():
    status, modules, printed = loaded("Qwen/Qwen3-8B", "--gpu", "rtx4090", "--json")
    assert (status, json.loads(printed)["verdict"]) == (0, "fits")
    assert not modules & (HEAVY | SLOW)


@pytest.mark.parametrize(
    "words",
    [
        ("--gpu", "rtx4090", "--json", "vllm", "serve", "Qwen/Qwen3-8B"),
        ("Qwen/Qwen3-8B", "--gpu", "rtx4090", "--json", "--engine", "minimum"),
        ("models", "qwen3", "--json"),
        ("schema",),
        ("--version",),
    ],
)
def test_other_plain_answers_load_nothing_heavy(words):
    _, modules, printed = loaded(*words)
    assert printed
    assert not modules & HEAVY


def test_a_picture_loads_rich_and_nothing_heavier():
    status, modules, printed = loaded("Qwen/Qwen3-8B", "--gpu", "rtx4090")
    assert status == 0
    assert printed
    assert "rich" in modules
    assert not modules & (HEAVY - {"rich"})
