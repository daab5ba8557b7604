"""Reading a shell's script, `bash -c "..."`: the commands in it, and the variables that they are given."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from willfit.errors import BadInput

SHELLS = frozenset({"bash", "sh", "dash", "zsh"})

#: Where a script's command writes to.
_REDIRECTION = re.compile(r"\s\d*>>?\s*&?\s*[^\s;&|]+")

#: What separates commands in a script.
_SEPARATORS = frozenset({"&&", "||", ";", "&", "|", "(", ")", "{", "}", ";;"})

#: Words in front of a command that are not its own.
_KEYWORDS = frozenset({"exec", "then", "do", "else", "!", "time"})

#: `NAME=value` in front of a command sets a variable for it.
VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)

_REFERENCE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?[-=]([^}]*))?\})")


def script_of(command: Sequence[str], program: str) -> str:
    """The script of `bash -c SCRIPT`.

    Raises
    ------
    BadInput
        If the shell is given none.
    """
    flag = next((index for index, word in enumerate(command) if re.fullmatch(r"-\w*c", word)), None)
    if flag is None or flag + 1 >= len(command):
        raise BadInput(f"{program}: a shell without a script starts no server", "give it -c 'COMMAND'")
    return command[flag + 1]


def commands_of(script: str, program: str) -> Iterator[tuple[dict[str, str], list[str]]]:
    """The commands of a script, each with the variables that were exported before it.

    Parameters
    ----------
    program
        How to call what holds the script in an error.

    Raises
    ------
    BadInput
        If quotes are not closed.
    """
    plain = _REDIRECTION.sub(" ", script.replace("\\\n", " ").replace("\n", " ; "))
    lexer = shlex.shlex(plain, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError as error:
        raise BadInput(f"{program}: cannot read the script: {error}") from error
    commands: list[list[str]] = [[]]
    for word in words:
        if word in _SEPARATORS:
            commands.append([])
        elif word not in _KEYWORDS or commands[-1]:
            commands[-1].append(word)
    known: dict[str, str] = {}
    exported: dict[str, str] = {}
    for one in commands:
        command = [_filled(word, known) for word in one]
        set_here = [VARIABLE.fullmatch(word) for word in command]
        if command[:1] == ["export"] or all(set_here):
            found = {match[1]: match[2] for match in set_here if match}
            known |= found
            if command[:1] == ["export"]:
                exported |= found | {name: known[name] for name in command[1:] if name in known}
        else:
            yield dict(exported), command


def _filled(word: str, known: dict[str, str]) -> str:
    """A word with the variables of the script in it."""
    return _REFERENCE.sub(
        lambda found: known.get(found[1] or found[2], found[0] if found[3] is None else found[3]), word
    )
