"""Which names an engine's versions have, as read in some of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from willfit.engines.versions import parse_version


@dataclass(frozen=True, slots=True)
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

    def of(self, name: str) -> tuple[str, str] | None:
        """The first and the last version that have a name ("" for the newest); None if none has."""
        return next((span for span, names in self.names.items() if f" {name} " in f" {names} "), None)

    def has(self, name: str, version: str) -> bool | None:
        """Whether a version has a name; None where the versions around it differ and it was not read itself.

        What is newer than all that was read is taken to have what the newest has; it may have more.
        """
        numbers = [parse_version(one) for one in self.read]
        asked, span = parse_version(version), self.of(name)
        at = bisect_right(numbers, asked) - 1
        if span is None:
            return None if at == len(numbers) - 1 and asked > numbers[-1] else False
        first = self.read.index(span[0])
        last = self.read.index(span[1]) if span[1] else len(numbers) - 1
        before = first <= at <= last
        if at < 0:
            return None if first == 0 else False
        if numbers[at] == asked or at == len(numbers) - 1:
            return before
        after = first <= at + 1 <= last
        return before if before == after else None
