"""Flags of training programs as names and values, and notes on those that are not counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from willfit.errors import BadInput
from willfit.launch.flags import Flag, FlagTable, did_you_mean, lacks
from willfit.launch.notes import of_other_versions
from willfit.launch.scanning import Dialect, scan
from willfit.launch.training.keys import Keys

#: Words for true and false (transformers' `HfArgumentParser: string_to_bool`; YAML's in jsonargparse).
_BOOLEANS = dict.fromkeys(("yes", "true", "t", "y", "1"), "true") | dict.fromkeys(
    ("no", "false", "f", "n", "0"), "false"
)


class Given(NamedTuple):
    """A command line, read.

    Attributes
    ----------
    keys
        Values by the flags' names, without `--` and with underscores.
    positionals
        Words that belong to no flag.
    notes
        On flags that the version does not have.
    version
        The one that was asked for; else the newest that has all flags, where that is not the newest of all.
    """

    keys: Keys
    positionals: list[str]
    notes: list[str]
    version: str | None


def read(
    words: Sequence[str], table: FlagTable, program: str, engine: str, version: str | None, dialect: Dialect
) -> Given:
    """Read a command line's flags.

    Parameters
    ----------
    words
        What stands behind the program's name.
    table
        The flags that it has.
    program, engine
        How to call the program in an error, and the framework in a note.
    version
        The version that is meant; None for the newest that has all flags.
    dialect
        How the program reads its flags.

    Raises
    ------
    BadInput
        For a flag that the program does not have, or a value that it would refuse.
    """
    scanned = scan(_plain_booleans(words, table), table, program, dialect, version)
    values = {_key(flag.name): scanned.options.data[flag.name] for flag in scanned.flags.values()}
    fitting, notes = version, []
    if version is None and table.versions:
        newest = table.versions[-1]
        having = [
            one
            for one in table.versions
            if not any(lacks(flag, table.versions, one) for flag in scanned.flags.values())
        ]
        if having and having[-1] != newest:
            fitting = having[-1]
            notes = [f"read as {engine} {fitting}, the newest that has these flags"]
    if table.versions:
        notes += of_other_versions(scanned, table, engine, fitting or table.versions[-1])
    return Given(Keys(program, values), scanned.positionals, notes, fitting)


def _plain_booleans(words: Sequence[str], table: FlagTable) -> list[str]:
    """Words in which booleans have `true` or `false` behind them, where they had another word for it."""
    found: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        before = found[-1] if found else ""
        if equals and _is_boolean(name, table) and value.lower() in _BOOLEANS:
            found.append(f"{name}={_BOOLEANS[value.lower()]}")
        elif _is_boolean(before, table) and word.lower() in _BOOLEANS:
            found.append(_BOOLEANS[word.lower()])
        else:
            found.append(word)
    return found


def _is_boolean(word: str, table: FlagTable) -> bool:
    flag = table.flags.get(word.replace("_", "-")) if word.startswith("--") else None
    return flag is not None and flag.takes == "boolean"


def flag_of(key: str, table: FlagTable) -> Flag | None:
    """The flag that a key of a config file means."""
    return table.flags.get("--" + key.replace("_", "-"))


def check_keys(keys: Keys, table: FlagTable, what: str) -> None:
    """Refuse a key of a file that the program would refuse, naming the closest.

    Raises
    ------
    BadInput
        For such a key.
    """
    for key in keys.values:
        if flag_of(key, table) is None and not any(_inside(key, table)):
            known = [name[2:].replace("-", "_") for name in table.flags]
            raise BadInput(f"{what}: there is no key {key[:60]}", did_you_mean(key, known))


def _inside(key: str, table: FlagTable) -> Iterable[bool]:
    """Whether a key stands inside one whose value may have names of its own."""
    parts = key.split(".")
    for count in range(1, len(parts)):
        flag = flag_of(".".join(parts[:count]), table)
        yield flag is not None


def not_counted(keys: Keys, table: FlagTable, off: Mapping[str, object] | None = None) -> list[str]:
    """Notes on what can change memory and was not looked at: one for each thing that is changed.

    Parameters
    ----------
    keys
        What was given.
    table
        Which of it can change memory, and what that is.
    off
        Values of keys that leave things as they are.
    """
    groups: dict[str, list[str]] = {}
    alone = []
    for key in keys.unread():
        flag, value = flag_of(key, table) or flag_of(key.partition(".")[0], table), keys.values[key]
        if (flag is not None and flag.quiet) or value in (
            False,
            "",
            "none",
            "None",
            "null",
            [],
            {},
            "false",
            "False",
        ):
            continue
        if off is not None and key in off and value == off[key]:
            continue
        if flag is not None and flag.about:
            groups.setdefault(flag.about, []).append(key)
        else:
            alone.append(f"{key}: {str(value)[:40]} is not counted")
    return [*(f"{what} ({', '.join(names)}) are not counted" for what, names in groups.items()), *alone]


def _key(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")


def allocator(variables: Mapping[str, str]) -> bool | None:
    """Whether the variables turn expandable segments on; None if they say nothing.

    `PYTORCH_ALLOC_CONF`, before torch 2.9 `PYTORCH_CUDA_ALLOC_CONF`.
    """
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF"):
        for part in variables.get(name, "").replace(" ", "").split(","):
            option, _, value = part.partition(":")
            if option == "expandable_segments":
                return value.lower() == "true"
    return None
