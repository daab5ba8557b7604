"""Where a flag stands in a command line, however it is spelled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from willfit.launch.editing.grammars import Grammar
from willfit.launch.flags import Flag
from willfit.launch.scanning import meaning


class Standing(NamedTuple):
    """A flag in a command line.

    Attributes
    ----------
    flag, on
        Which one, and whether its spelling turns it on.
    at, end
        Its words.
    joined
        The beginning of its word that is not its value: `--flag=`, `-c`; empty where the value is a word of its own.
    """

    flag: Flag
    on: bool
    at: int
    end: int
    joined: str


def standing(words: Sequence[str], start: int, grammar: Grammar) -> Iterator[Standing]:
    """The flags of a command line from `start` on; words of other programs are passed over."""
    at = start
    while at < len(words) and words[at] != "--":
        meant = meaning(words[at], grammar.table, grammar.dialect)
        if meant is None:
            at += 1
            continue
        flag, on, joined = meant
        end = at + 1 if joined else at + 1 + _values(words, at + 1, flag, grammar)
        yield Standing(flag, on, at, end, joined)
        at = end


def _values(words: Sequence[str], at: int, flag: Flag, grammar: Grammar) -> int:
    """How many words behind a flag are its own."""
    if flag.takes in ("switch", "toggle") or at >= len(words):
        return 0
    if flag.takes == "boolean":
        return int(words[at].lower() in ("true", "false"))
    if flag.takes == "pair":
        return min(2, len(words) - at)
    if flag.takes in ("value", "each"):
        return 1
    most = 1 if flag.takes == "optional" else len(words)
    count = 0
    while at + count < len(words) and count < most and not _begins(words[at + count]):
        count += 1
    return count


def _begins(word: str) -> bool:
    """Whether a word cannot be one of several values: a flag, known or not, but no negative number."""
    return word.startswith("-") and not word[1:2].isdigit()
