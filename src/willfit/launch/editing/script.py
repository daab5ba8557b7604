"""The words of a shell's script and where they stand, so that a word can be replaced and no other touched."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

#: A word: anything in quotes, behind a backslash, or that is no blank and ends no command.
_WORD = re.compile(r"""(?:'[^']*'|"(?:[^"\\]|\\.)*"|\\[^\n]|[^\s;&|(){}<>'"\\])+""", re.DOTALL)
#: What ends a command, but a line that goes on.
_END = re.compile(r"\n|;|&&?|\|\|?|[(){}]")
_REDIRECTION = re.compile(r"\d*(?:>>?|<)\s*&?\s*[^\s;&|]+|&>>?\s*[^\s;&|]+")


class Word(NamedTuple):
    """A word of a script: what it says, and where it stands."""

    text: str
    start: int
    end: int


def commands(script: str) -> Iterator[list[Word]]:
    """The commands of a script, as the words that they are made of; where files are written is left out."""
    found: list[Word] = []
    at = 0
    while at < len(script):
        redirected, ended = _REDIRECTION.match(script, at), _END.match(script, at)
        word = _WORD.match(script, at)
        if script.startswith("\\\n", at):
            at += 2
        elif redirected is not None:
            at = redirected.end()
        elif ended is not None:
            if found:
                yield found
            found, at = [], ended.end()
        elif word is not None:
            found.append(Word(_plain(word[0]), at, word.end()))
            at = word.end()
        else:
            at += 1
    if found:
        yield found


def _plain(text: str) -> str:
    """What a word says, without its quotes."""
    try:
        return "".join(shlex.split(text))
    except ValueError:
        return text
