"""Build numbers: llama.cpp counts its commits, has releases since August 2026, and other programs ship it.

`builds.txt` has which build is in which version: releases by their tags, llama-cpp-python by the commit that it pins,
KoboldCpp by the last commit of llama.cpp in its history.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from willfit.engines.versions import Version, parse_version
from willfit.errors import BadInput

#: The newest build whose rules were read.
NEWEST_BUILD = 11549

_BUILD = re.compile(r"[br]?(\d{1,6})(?:[-+ ].*)?")


def build_of(version: str | None) -> int:
    """The build that a version of llama.cpp names: `b6000`, `6000`, `0.5.0`; the newest one read for None.

    A release is the build that it was made from, one that is not known the newest before it.

    Raises
    ------
    BadInput
        If the text is neither a build nor a release.
    """
    if version is None:
        return NEWEST_BUILD
    build = _BUILD.fullmatch(version.strip())
    if build is not None:
        return int(build[1])
    if "." not in version:
        raise BadInput(f"cannot read the build {version[:40]!r}", "write it as b6000 or 0.5.0")
    return build_inside("llama.cpp", version)


def build_inside(program: str, version: str) -> int:
    """The build of llama.cpp in a version of `koboldcpp` or `llama-cpp-python`, or of a release of `llama.cpp`.

    Raises
    ------
    BadInput
        If the version cannot be read.
    """
    asked = parse_version(version)
    rows = _rows()[program]
    return next((build for since, build in reversed(rows) if since <= asked), rows[0][1])


@cache
def _rows() -> dict[str, list[tuple[Version, int]]]:
    found: dict[str, list[tuple[Version, int]]] = {}
    for line in (Path(__file__).parent / "builds.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            program, version, build = line.split()
            found.setdefault(program, []).append((parse_version(version), int(build)))
    return found
