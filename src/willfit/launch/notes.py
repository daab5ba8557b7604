"""Notes on flags: what is not counted, and what a version does not have."""

from __future__ import annotations

from willfit.launch.flags import Flag, FlagTable, lacks
from willfit.launch.scanning import Scanned


def not_counted(scanned: Scanned) -> list[str]:
    """Notes on flags that can change memory and that the launcher has not looked at, one for each thing they change."""
    groups: dict[str, list[str]] = {}
    for name, flag in scanned.flags.items():
        if not flag.quiet and scanned.options.unseen(name):
            groups.setdefault(flag.about, []).append(name)
    alone = groups.pop("", [])
    return [f"{what} ({', '.join(names)}) are not counted" for what, names in groups.items()] + [
        f"{name} is not counted" for name in alone
    ]


def of_other_versions(scanned: Scanned, table: FlagTable, engine: str, version: str) -> list[str]:
    """Notes on flags that the version is known not to have."""
    return [
        f"{engine} {version} has no {scanned.spelled.get(flag.name, flag.name)} ({_era(flag)})"
        for flag in scanned.flags.values()
        if lacks(flag, table.versions, version)
    ]


def _era(flag: Flag) -> str:
    if flag.since and flag.until:
        return f"{flag.since} to {flag.until}"
    return f"since {flag.since}" if flag.since else f"until {flag.until}"
