"""Version numbers of engines, compared as their release order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Protocol, TypeVar

from willfit.errors import BadInput

Version = tuple[int, ...]

#: llama.cpp counts its builds: `b6000`.
_RELEASE = re.compile(r"^[vb]?(\d+(?:\.\d+)*)(.*)$")


@cache
def parse_version(text: str) -> Version:
    """The release numbers of a version: '0.19.2rc1.dev206' is (0, 19, 2).

    A release candidate counts as the release it leads to, because it already behaves so.

    Raises
    ------
    BadInput
        If the text does not begin with numbers.
    """
    match = _RELEASE.match(text.strip())
    if match is None:
        raise BadInput(f"cannot read the version {text!r}", "write it as 0.25.1")
    return tuple(int(part) for part in match.group(1).split("."))


class _Dated(Protocol):
    @property
    def since(self) -> Version: ...


EraT = TypeVar("EraT", bound=_Dated)


def era_of(version: str, eras: Sequence[EraT]) -> EraT:
    """The last of `eras`, oldest first, that a version has reached; the oldest one for versions before it."""
    numbers = parse_version(version)
    found = eras[0]
    for era in eras:
        if numbers >= era.since:
            found = era
    return found


def changed(since: Version, **fields: object) -> tuple[Version, Mapping[str, object]]:
    """What changed in a version: a line of an engine's table of eras."""
    return since, fields


def succession(first: EraT, *changes: tuple[Version, Mapping[str, object]]) -> tuple[EraT, ...]:
    """Eras in order, each like the one before it but for what changed."""
    eras: list[Any] = [first]
    for since, fields in changes:
        eras.append(replace(eras[-1], since=since, **fields))
    return tuple(eras)
