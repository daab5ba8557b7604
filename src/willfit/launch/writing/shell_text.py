"""A command as text for a shell: reasons above, files first, one flag a line."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from willfit.launch.writing.containers import PROGRAMS
from willfit.launch.writing.written import Flag, Written
from willfit.launch.writing.yaml_text import comment_text

#: Ends a file's text in a shell; one that stands in no file is found by lengthening it.
_END = "EOF"


def shell_text(written: Written, about: str = "") -> str:
    """What can be pasted into a shell.

    Parameters
    ----------
    about
        A line for the top, in words.
    """
    lines = _comments(written, about)
    for name, text in written.files.items():
        end = _END
        while end in text.splitlines():
            end += "_"
        lines += [f"cat > {shlex.quote(name)} <<'{end}'", text.rstrip("\n"), end]
    started = [flag.words for flag in written.flags]
    if written.server:
        lines.append(_joined(written.variables, written.server, ()) + " &")
        lines.append(f"until {PROGRAMS[written.engine].test} > /dev/null 2>&1; do sleep 1; done")
        lines.append(_joined((), written.start, started))
    else:
        lines.append(_joined(written.variables, written.start, started))
    lines += [shlex.join(words) for words in written.after]
    return "\n".join(lines) + "\n"


def _comments(written: Written, about: str) -> list[str]:
    """The block above: a comment between two lines of one command would end it."""
    named = f"{written.engine} {written.version}"
    lines = [f"{named}: {about}" if about else named]
    for flag in (*written.variables, *written.flags):
        lines.append(f"{' '.join(flag.words)}: {flag.reason}")
    lines += [f"note: {note}" for note in written.notes]
    return [comment_text(line) for line in lines]


def _joined(variables: Iterable[Flag], start: Iterable[str], flags: Iterable[tuple[str, ...]]) -> str:
    set_before = [_assignment(flag.words[0]) for flag in variables]
    parts = [*set_before, shlex.join(start), *(shlex.join(words) for words in flags)]
    begun = len(set_before) + 1
    return " \\\n".join(part if index < begun else f"  {part}" for index, part in enumerate(parts))


def _assignment(word: str) -> str:
    name, _, value = word.partition("=")
    return f"{name}={shlex.quote(value)}"
