"""Arranging the words of a command line before it is parsed.

`willfit MODEL` means `willfit estimate MODEL`, and in `willfit --gpu X vllm serve MODEL --flag` everything
from `vllm` on belongs to vLLM.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import NamedTuple

from willfit.launch.table import is_program as starts_command
from willfit.launch.table import variables_before

#: The command that is meant where none is named.
DEFAULT_COMMAND = "estimate"

#: Commands behind whose words a launch command stands, as behind none.
IN_FRONT = (DEFAULT_COMMAND, "fix")

#: Commands that are given the program behind their words: of others than those above it stands after `--`.
TAKE_PROGRAMS = (*IN_FRONT, "trace")

#: Options that take no value, of all commands.
SWITCHES: frozenset[str] = frozenset(
    {
        "--json",
        "--explain",
        "--offline",
        "--tensors",
        "--held-out",
        "--help",
        "-h",
        "--packed",
        "--compile",
        "--ddp",
        "--distributed-optimizer",
        "--sp",
        "--generate",
        "--all",
        "--mig",
        "--rejected",
    }
)


class Arranged(NamedTuple):
    """A command line in its parts.

    Attributes
    ----------
    command
        Which of our commands is meant.
    words
        Its options and arguments.
    launch
        The launch command behind them; empty if there is none.
    """

    command: str
    words: list[str]
    launch: list[str]


def arranged(words: Sequence[str], commands: Collection[str]) -> Arranged:
    """Tell our command, its words and a launch command apart."""
    at = first_positional(words)
    if at is None:
        return Arranged(DEFAULT_COMMAND, list(words), [])
    options, rest = list(words[:at]), list(words[at:])
    separated = bool(options) and options[-1] == "--"
    if separated:
        options.pop()
    elif rest[0] in commands:
        # `willfit --json inspect MODEL`: options may stand before the command as well.
        command, options, rest = rest[0], [*options, *rest[1:]], []
        if command not in IN_FRONT:
            ends = options.index("--") if command in TAKE_PROGRAMS and "--" in options else len(options)
            return Arranged(command, options[:ends], options[ends + 1 :])
        return arranged(options, ())._replace(command=command)
    started = variables_before(rest)[1]
    if (started and is_program(started[0])) or (separated and len(rest) > 1):
        return Arranged(DEFAULT_COMMAND, options, rest)
    return Arranged(DEFAULT_COMMAND, [*options, *rest], [])


def first_positional(words: Sequence[str]) -> int | None:
    """Index of the first word that is neither an option nor an option's value."""
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            return index + 1 if index + 1 < len(words) else None
        if not word.startswith("-") or word == "-":
            return index
        joined = "=" in word or (not word.startswith("--") and len(word) > 2)
        index += 1 if word in SWITCHES or joined else 2
    return None


def is_program(word: str) -> bool:
    """Whether a word starts a launch command. A directory of that name is a model."""
    return starts_command(word) and not os.path.isdir(word)
