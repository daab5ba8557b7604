"""From fields of settings to flags, by a table: what every writer shares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.launch.flags import FlagTable, lacks
from willfit.launch.values import check
from willfit.launch.writing.written import Flag
from willfit.quantities import format_bytes


class Row(NamedTuple):
    """A field of settings, and the flag that says it.

    Attributes
    ----------
    field
        Its name in the settings.
    flag
        What stands for it; of a field that is true or false, for true.
    reason
        Why, in one line; `{value}` is the value, `{cache}` and `{weights}` what these take of a device.
    off
        What stands for false; empty if false is the default.
    pinned
        It is written although it is the default, because the estimate rests on it.
    names
        What the engine calls values that have other names here.
    """

    field: str
    flag: str
    reason: str
    off: str = ""
    pinned: bool = False
    names: Mapping[str, str] = {}


def flags_of(settings: Any, usual: Any, table: Iterable[Row], estimate: Estimate) -> list[Flag]:
    """The flags of all fields that differ from the usual, and of those that are pinned.

    Parameters
    ----------
    settings, usual
        What is asked for, and the engine's defaults.
    table
        In the order of the command.
    estimate
        What the settings take.
    """
    found = []
    sizes = {
        name: format_bytes(term_bytes(estimate, term))
        for name, term in (("cache", "kv_cache"), ("weights", "weights"))
    }
    for row in table:
        value = getattr(settings, row.field)
        if value is None or (value == getattr(usual, row.field) and not row.pinned):
            continue
        reason = row.reason.format(value=text_of(value), **sizes)
        if value is True or value is False:
            word = row.flag if value else row.off
            if word:
                found.append(Flag((word,), reason))
        else:
            found.append(Flag((row.flag, row.names.get(text_of(value), text_of(value))), reason))
    return found


def text_of(value: Any) -> str:
    """A value as a command line has it: the shortest text that reads back as the same number."""
    if isinstance(value, tuple):
        return ",".join(text_of(one) for one in value)
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def require_written(settings: Any, usual: Any, written: Iterable[str], engine: str) -> None:
    """Refuse settings of which a command would not say everything.

    Parameters
    ----------
    written
        Fields that the writer knows.

    Raises
    ------
    BadInput
        For a field that differs from the usual and that it does not know.
    """
    known = set(written)
    for one in fields(settings):
        if one.name not in known and getattr(settings, one.name) != getattr(usual, one.name):
            raise BadInput(
                f"{engine}: no command is written for {one.name} = {str(getattr(settings, one.name))[:60]}",
                "leave it at its default",
            )


def flag_of_version(table: FlagTable, version: str, spellings: Sequence[str], engine: str) -> str:
    """The first of some spellings that a version has.

    Raises
    ------
    BadInput
        If it has none of them.
    """
    for name in spellings:
        flag = table.flags.get(name) or table.negatives.get(name)
        if flag is not None and not lacks(flag, table.versions, version):
            return name
    raise BadInput(
        f"{engine} {version} has no {spellings[0]}, which these settings need",
        "ask about a newer version with --engine-version",
    )


def checked(flags: Iterable[Flag], table: FlagTable, version: str, engine: str) -> tuple[Flag, ...]:
    """The flags, all of which a version has, with values that it takes.

    Raises
    ------
    BadInput
        If it lacks one, or would refuse a value.
    """
    found = tuple(flags)
    for flag in found:
        name = flag_of_version(table, version, [_bare(flag.words[0], table)], engine)
        if name in table.flags and len(flag.words) > 1:
            check(engine, table.flags[name], flag.words[1])
    return found


def _bare(word: str, table: FlagTable) -> str:
    """A spelling as a table has it, without `no-` and a value behind `=`."""
    name = word.partition("=")[0]
    known = name in table.flags or name in table.negatives
    return name if known else name.replace("--no-", "--", 1)


def term_bytes(estimate: Estimate, name: str) -> int:
    """The most that a term takes of any device."""
    sizes = [sum(term.bytes for term in device.terms if term.name == name) for device in estimate.devices]
    return max(sizes, default=0)


def length_reason(estimate: Estimate) -> str:
    """Why a sequence may be as long as it may: what was asked, and what that takes of the cache."""
    for demand in estimate.demands:
        share = f"{format_bytes(demand.needed_bytes)} of {format_bytes(demand.pool_bytes)} of cache"
        return f"the longest sequence asked for; {demand.what} take {share} on a device"
    return "the longest sequence asked for"


def ranks_reason(estimate: Estimate, ranks: int) -> str:
    """Why so many devices share each layer."""
    weights = format_bytes(term_bytes(estimate, "weights"))
    if ranks == 1:
        return f"one device, with {weights} of weights"
    return f"{ranks} devices share each layer: {weights} of weights on each"
