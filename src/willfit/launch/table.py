"""Which launcher reads a command."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from willfit.errors import BadInput
from willfit.launch.base import Launch

#: Modules of this folder, asked in turn whether a command is theirs.
LAUNCHERS: tuple[str, ...] = ("vllm", "lmdeploy", "lightllm")

#: First words of commands, so that a model's name is not taken for one.
PROGRAMS: frozenset[str] = frozenset({"vllm", "python", "python3", "lmdeploy"})


def parse_command(words: Sequence[str], version: str | None = None) -> Launch:
    """Read a launch command.

    Raises
    ------
    BadInput
        If no launcher knows the program, or the command is wrong.
    """
    for name in LAUNCHERS:
        module = import_module(f"willfit.launch.{name}")
        if module.recognises(words):
            launch: Launch = module.parse(words, version)
            return launch
    raise BadInput(f"cannot read the command {' '.join(words)[:80]!r}", f"known: {', '.join(LAUNCHERS)}")
