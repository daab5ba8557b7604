"""Arguments of a script, told apart: those that are known, and those that are the script's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from willfit.launch.flags import Flag, FlagTable

_NUMBER = re.compile(r"-\d+(\.\d*)?(e-?\d+)?|-\.\d+", re.IGNORECASE)

#: Flags of a switch's kind in scripts that do not use `HfArgumentParser` (DeepSpeed's `add_config_arguments`).
_MAY_STAND_ALONE = ("--deepspeed",)


class Words(NamedTuple):
    """Arguments, told apart.

    Attributes
    ----------
    known
        Words of flags that are in the tables, with their values.
    own
        Flags that are in none, as they are written, with their values.
    positionals
        Words in front of all flags.
    alone
        Flags that need a value and have none, which other parsers read as switches.
    """

    known: list[str]
    own: list[tuple[str, list[str]]]
    positionals: list[str]
    alone: list[str]


def told_apart(words: Sequence[str], table: FlagTable) -> Words:
    """Which of a script's arguments are known."""
    found = Words([], [], [], [])
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if not _is_flag(word):
            found.positionals.append(word)
            continue
        values = []
        while index < len(words) and not _is_flag(words[index]):
            values.append(words[index])
            index += 1
        flag = flag_of(word.partition("=")[0], table)
        if flag is None:
            found.own.append((word, values))
        elif flag.name in _MAY_STAND_ALONE and not values and "=" not in word:
            found.alone.append(flag.name)
        else:
            taken = values if flag.takes in ("values", "any") else values[:1]
            found.known.extend([word, *taken])
            found.positionals.extend(values[len(taken) :])
    return found


def flag_of(name: str, table: FlagTable) -> Flag | None:
    """The flag that a word means, or that `--no_` of it turns off."""
    dashed = "--" + name.lstrip("-").replace("_", "-") if name.startswith("--") else name
    flag = table.flags.get(dashed)
    if flag is None and dashed.startswith("--no-"):
        positive = table.flags.get("--" + dashed[5:])
        flag = positive if positive is not None and positive.takes == "boolean" else None
    return flag


def _is_flag(word: str) -> bool:
    return (
        len(word) > 1
        and word.startswith("-")
        and not _NUMBER.fullmatch(word)
        and " " not in word.partition("=")[0]
    )
