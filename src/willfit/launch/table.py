"""Which launcher reads a command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module

from willfit.errors import BadInput
from willfit.launch.base import Launch

#: Modules of this folder, asked in turn whether a command is theirs.
LAUNCHERS: tuple[str, ...] = ("vllm", "sglang", "trtllm", "tgi", "lmdeploy", "lightllm", "docker")

#: First words of commands, so that a model's name is not taken for one.
PROGRAMS: frozenset[str] = frozenset(
    {
        "vllm",
        "sglang",
        "trtllm-serve",
        "text-generation-launcher",
        "python",
        "python3",
        "lmdeploy",
        "docker",
        "podman",
    }
)

#: `NAME=value` in front of a command sets a variable for it.
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


def variables_before(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The variables that are set in front of a command, with `env` or without, and the command."""
    variables: dict[str, str] = {}
    for index, word in enumerate(words):
        if word == "env" and not index:
            continue
        found = _VARIABLE.fullmatch(word)
        if found is None:
            return variables, list(words[index:])
        variables[found.group(1)] = found.group(2)
    return variables, []


def parse_command(words: Sequence[str], version: str | None = None) -> Launch:
    """Read a launch command.

    Raises
    ------
    BadInput
        If no launcher knows the program, or the command is wrong.
    """
    variables, command = variables_before(words)
    for name in LAUNCHERS if command else ():
        module = import_module(f"willfit.launch.{name}")
        if module.recognises(command):
            launch: Launch
            if getattr(module, "READS_VARIABLES", False):
                launch = module.parse(command, version, variables)
            else:
                launch = module.parse(command, version)
            return launch
    raise BadInput(f"cannot read the command {' '.join(words)[:80]!r}", f"known: {', '.join(LAUNCHERS)}")
