"""How much of a device's memory a program can allocate, where no measured figure is known.

The constants are data: `data/usable_rules.csv` holds a share and a fixed reserve per vendor with the
evidence behind each, `data/apple_wired_limit.csv` the default Metal working set by RAM size.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from willfit.hardware.data import rows
from willfit.quantities import GIB, MIB


class UsableRule(NamedTuple):
    """What a driver keeps: `reserve_mib` MiB and `reserve_fraction` of the total."""

    reserve_mib: float
    reserve_fraction: float
    evidence: str


@cache
def usable_rules() -> dict[tuple[str, str, str], UsableRule]:
    """The rules by (vendor, `dedicated` or `unified`, `reported` or `nominal`)."""
    return {
        (row["vendor"], row["memory"], row["applies_to"]): UsableRule(
            float(row["reserve_mib"]), float(row["reserve_fraction"]), row["evidence"]
        )
        for row in rows("usable_rules.csv")
    }


def usable_from_rule(vendor: str, unified: bool, nominal: int, reported: int | None) -> tuple[int, str]:
    """Usable bytes of a device without a measured total, and the line that says why.

    Parameters
    ----------
    vendor, unified
        As in the device table.
    nominal, reported
        Bytes on the box, and bytes that the driver's tool calls total if known.

    Returns
    -------
    tuple[int, str]
        Bytes, and the rule with its evidence.
    """
    rules = usable_rules()
    memory = "unified" if unified else "dedicated"
    for base, size in (("reported", reported), ("nominal", nominal)):
        rule = rules.get((vendor, memory, base))
        if rule and size:
            return _applied(rule, size, base)
    base, size = ("reported", reported) if reported else ("nominal", nominal)
    return _applied(rules["*", "dedicated", base], size, base)


def _applied(rule: UsableRule, size: int, base: str) -> tuple[int, str]:
    left = size - int(rule.reserve_mib * MIB + rule.reserve_fraction * size)
    taken = [f"{rule.reserve_mib:g} MiB"] if rule.reserve_mib else []
    taken += [f"{100 * rule.reserve_fraction:g} %"] if rule.reserve_fraction else []
    return left, f"{base} size less {' and '.join(taken)} ({rule.evidence})"


@cache
def _wired_limits() -> dict[int, tuple[float | None, float | None]]:
    """RAM in GiB -> default limit in GiB on newer and on older macOS."""
    return {
        int(row["ram_gib"]): (
            float(row["limit_gib_newer_macos"]) if row["limit_gib_newer_macos"] else None,
            float(row["limit_gib_older_macos"]) if row["limit_gib_older_macos"] else None,
        )
        for row in rows("apple_wired_limit.csv")
    }


def apple_working_set(ram_bytes: int) -> tuple[int, str]:
    """Metal's default working-set limit on a Mac with this much RAM, and the line that says why.

    A size that the table lacks follows the older rule, which is the smaller one: two thirds of RAM up to
    32 GiB, three quarters above.
    """
    newer, older = _wired_limits().get(round(ram_bytes / GIB), (None, None))
    if newer is not None:
        before = f", {older:g} GiB on older ones" if older else ""
        why = f"default Metal working set of newer macOS{before}; iogpu.wired_limit_mb changes it"
        return int(newer * GIB), why
    if older is not None:
        return int(older * GIB), "default Metal working set of older macOS; iogpu.wired_limit_mb changes it"
    share = 2 / 3 if ram_bytes <= 32 * GIB else 3 / 4
    return int(ram_bytes * share), "Metal's older default of 2/3 of RAM up to 32 GiB and 3/4 above"
