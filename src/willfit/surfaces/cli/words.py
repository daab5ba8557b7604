"""Arranging the words of a command line before it is parsed.

`willfit MODEL` means `willfit estimate MODEL`, and in `willfit --gpu X vllm serve MODEL --flag` everything from
`vllm` on belongs to vLLM.
"""

from __future__ import annotations

from collections.abc import Sequence

from willfit.launch.table import PROGRAMS

#: Commands of their own. Anything else in first place is a model or a launch command.
COMMANDS: frozenset[str] = frozenset(
    {"estimate", "inspect", "rules", "gpus", "models", "validate", "calibrate", "schema"}
)

#: Options of `estimate` that take no value.
_SWITCHES: frozenset[str] = frozenset({"--json", "--explain", "--offline", "--help", "-h"})

_PASSED_ON: frozenset[str] = frozenset(
    {"--help", "-h", "--version", "--install-completion", "--show-completion"}
)


def arranged(words: Sequence[str]) -> list[str]:
    """The words with `estimate` in front where no command is named, and `--` before a launch command."""
    if not words or words[0] in COMMANDS - {"estimate"} or words[0] in _PASSED_ON:
        return list(words)
    rest = list(words[1:] if words[0] == "estimate" else words)
    at = first_positional(rest)
    if at is not None and is_program(rest[at]) and rest[at + 1 :]:
        if "--" not in rest[:at]:
            rest.insert(at, "--")
    elif at is not None and rest[at] in COMMANDS:
        # `willfit --json inspect MODEL`: options may stand before the command as well.
        return [rest[at], *rest[:at], *rest[at + 1 :]]
    return ["estimate", *rest]


def first_positional(words: Sequence[str]) -> int | None:
    """Index of the first word that is neither an option nor an option's value."""
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            return index + 1 if index + 1 < len(words) else None
        if not word.startswith("-"):
            return index
        index += 1 if word in _SWITCHES or "=" in word else 2
    return None


def is_program(word: str) -> bool:
    """Whether a word starts a launch command."""
    return word.rsplit("/", 1)[-1] in PROGRAMS
