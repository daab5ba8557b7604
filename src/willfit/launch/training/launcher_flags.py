"""Flags of a launcher in front of a script: they end where the first word stands that belongs to none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from willfit.errors import BadInput
from willfit.launch.flags import FlagTable, unknown_flag
from willfit.launch.scanning import Dialect, scan

_DIALECT = Dialect(abbreviations=False, underscores=True)


def launcher_flags(words: Sequence[str], table: FlagTable, program: str) -> tuple[dict[str, Any], list[str]]:
    """The launcher's flags by name, with underscores, and what it starts with what is behind it.

    Parameters
    ----------
    words
        What stands behind the launcher's name.
    table
        Its flags.
    program
        How to call it in an error.

    Raises
    ------
    BadInput
        For a flag that it does not have, or a wrong value.
    """
    end = 0
    while end < len(words) and words[end].startswith("-") and len(words[end]) > 1:
        name, equals, _ = words[end].partition("=")
        flag = table.flags.get(name if not name.startswith("--") else "--" + name[2:].replace("_", "-"))
        if flag is None:
            raise unknown_flag(name, table.flags, program)
        end += 1 if equals or flag.takes == "switch" else 2
    if end > len(words):
        raise BadInput(f"{program}: {words[-1]} needs a value")
    scanned = scan(words[:end], table, program, _DIALECT)
    said = {name.lstrip("-").replace("-", "_"): scanned.options[name] for name in scanned.flags}
    return said, list(words[end:])
