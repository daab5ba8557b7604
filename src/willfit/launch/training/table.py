"""Which launcher reads a training command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from os.path import basename
from types import ModuleType

from willfit.errors import BadInput

#: Modules of this folder, asked in turn whether a command is theirs.
TRAINERS: tuple[str, ...] = (
    "torchtune",
    "torchtitan",
    "litgpt",
    "llamafactory",
    "axolotl",
    "swift",
    "megatron",
)

#: Programs of their own.
PROGRAMS = frozenset({"tune", "litgpt", "llamafactory-cli", "lmf", "axolotl", "swift", "megatron"})

#: Programs that start a script, which may be one of these.
_STARTERS = re.compile(
    r"torchrun|accelerate|deepspeed|python(\d(\.\d+)?)?|(ba)?sh|run_(llama_)?train\.sh|sbatch"
)


def launcher_of(words: Sequence[str]) -> ModuleType | None:
    """The launcher that reads a command which begins with its program; None if none knows it."""
    name = basename(words[0]) if words else ""
    if name not in PROGRAMS and not _STARTERS.fullmatch(name):
        return None
    for one in TRAINERS:
        module = import_module(f"willfit.launch.training.{one}")
        try:
            if module.recognises(words):
                return module
        except BadInput:
            # A launcher in front is wrong; whose script it starts is not known.
            continue
    return None
