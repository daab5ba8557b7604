"""What stands in front of a training script: `python`, `torchrun`, and how many processes they start."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os.path import basename

from willfit.launch.training.torchrun_words import Started, split

_PYTHON = re.compile(r"python(\d(\.\d+)?)?")
_TORCHRUN = ("torch.distributed.run", "torch.distributed.launch")


def started(words: Sequence[str]) -> Started:
    """The script or module that a command starts, with what follows it, and by how many processes.

    Raises
    ------
    BadInput
        If torchrun would refuse its flags.
    """
    name = basename(words[0])
    rest = list(words[1:])
    if name == "torchrun":
        return split(rest, "torchrun")
    if not _PYTHON.fullmatch(name):
        return Started(None, 1, list(words), False)
    while rest and rest[0].startswith("-") and rest[0] != "-m":
        # Python's own switches (`-u`, `-O`); two of them take a word.
        rest = rest[2:] if rest[0] in ("-X", "-W") else rest[1:]
    if rest[:1] == ["-m"] and rest[1:2] and rest[1] in _TORCHRUN:
        return split(rest[2:], f"python -m {rest[1]}")
    return Started(1, 1, rest[1:] if rest[:1] == ["-m"] else rest, False)


def script_of(words: Sequence[str]) -> str:
    """The script or module that a command starts; empty if that cannot be read."""
    from willfit.errors import BadInput

    try:
        rest = started(words).rest
    except BadInput:
        return ""
    return rest[0] if rest else ""
