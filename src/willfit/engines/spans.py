"""Which names an engine's versions have, as read in some of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from willfit.engines.versions import Version, parse_version


@dataclass(frozen=True)
class Spans:
    """Names with the first and the last of the read versions that have them.

    Attributes
    ----------
    read
        The versions that were read, oldest first.
    names
        (first, last) -> names, divided by spaces; a last version of "" is the newest.
    """

    read: Sequence[str]
    names: Mapping[tuple[str, str], str]

    @cached_property
    def _numbers(self) -> list[Version]:
        return [parse_version(version) for version in self.read]

    @cached_property
    def _spans(self) -> dict[str, tuple[str, str]]:
        return {name: span for span, names in self.names.items() for name in names.split()}

    def of(self, name: str) -> tuple[str, str] | None:
        """The first and the last version that have a name ("" for the newest); None if none has."""
        return self._spans.get(name)

    def has(self, name: str, version: str) -> bool | None:
        """Whether a version has a name; None where the versions around it differ and it was not read itself.

        A version newer than all that were read is taken to have what the newest has, one that is older what the oldest
        has; whether it has others is not established.
        """
        numbers, span = self._numbers, self.of(name)
        asked, newest = parse_version(version), len(self.read) - 1
        at = bisect_right(numbers, asked) - 1
        outside = at < 0 or asked > numbers[newest]
        if span is None:
            return None if outside else False
        first = self.read.index(span[0])
        last = self.read.index(span[1]) if span[1] else newest
        if at < 0:
            return True if first == 0 else None
        here = first <= at <= last
        if outside or numbers[at] == asked:
            return here
        return here if here == (first <= at + 1 <= last) else None
