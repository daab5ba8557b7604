"""What a comparison is made of, and its form as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from willfit.estimate import DeviceEstimate, Estimate, Term
from willfit.quantities import format_bytes


def signed(size: float) -> str:
    """A difference in bytes for people: `+1.50 GiB`, `−512.0 MiB`, `0 B`."""
    return f"{'+' if size > 0 else '−' if size < 0 else ''}{format_bytes(abs(size))}"


@dataclass(frozen=True, slots=True)
class Fact:
    """Something in which the two sides differ, in words."""

    what: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.what} {self.a} → {self.b}"

    def as_json(self) -> dict[str, str]:
        """The fact as the published JSON has it."""
        return {"what": self.what, "a": self.a, "b": self.b}


@dataclass(frozen=True, slots=True)
class Reason:
    """One cause of a difference.

    Attributes
    ----------
    words
        What differs, with its numbers.
    difference
        How much of the difference that makes, in the unit of what is explained. The parts add up.
    """

    words: str
    difference: float

    def as_json(self) -> dict[str, Any]:
        """The reason as the published JSON has it."""
        return {"words": self.words, "difference": _rounded(self.difference)}


def whole(reasons: Iterable[Reason], difference: int) -> tuple[Reason, ...]:
    """Reasons with whole numbers that add up to a difference, the largest first.

    What rounding leaves goes to the largest; reasons that make nothing are dropped.
    """
    ordered = sorted(reasons, key=lambda reason: -abs(reason.difference))
    sizes = [round(reason.difference) for reason in ordered]
    if sizes:
        sizes[0] += difference - sum(sizes)
    return tuple(Reason(reason.words, size) for reason, size in zip(ordered, sizes, strict=True) if size)


@dataclass(frozen=True, slots=True)
class TermChange:
    """One term on both sides.

    Attributes
    ----------
    name
        The term's name.
    a, b
        Terms of that name; empty where a side has none.
    reasons
        Why they differ, in bytes; empty if they do not.
    """

    name: str
    a: tuple[Term, ...]
    b: tuple[Term, ...]
    reasons: tuple[Reason, ...] = ()

    @property
    def a_bytes(self) -> int:
        """Bytes on side A."""
        return sum(term.bytes for term in self.a)

    @property
    def b_bytes(self) -> int:
        """Bytes on side B."""
        return sum(term.bytes for term in self.b)

    @property
    def difference_bytes(self) -> int:
        """How much more B takes."""
        return self.b_bytes - self.a_bytes

    @property
    def formulas(self) -> tuple[str, str]:
        """The formula of each side; empty where a side has no such term."""
        return _joined(term.formula for term in self.a), _joined(term.formula for term in self.b)

    @property
    def references(self) -> tuple[str, str]:
        """Where the rule of each side is from."""
        return _joined(term.reference for term in self.a), _joined(term.reference for term in self.b)

    def as_json(self) -> dict[str, Any]:
        """The change as the published JSON has it."""
        return {
            "name": self.name,
            "a_bytes": self.a_bytes,
            "b_bytes": self.b_bytes,
            "difference_bytes": self.difference_bytes,
            "reasons": [reason.as_json() for reason in self.reasons],
            "a_formula": self.formulas[0],
            "b_formula": self.formulas[1],
            "a_reference": self.references[0],
            "b_reference": self.references[1],
        }


@dataclass(frozen=True, slots=True)
class PlaceChange:
    """The fullest device of each side, or the hosts, term by term."""

    a: DeviceEstimate
    b: DeviceEstimate
    terms: tuple[TermChange, ...]

    @property
    def difference_bytes(self) -> int:
        """How much more B takes at the peak: the sum of the terms' differences."""
        return self.b.peak_bytes - self.a.peak_bytes

    def as_json(self) -> dict[str, Any]:
        """The place as the published JSON has it."""
        return {
            "a": _place_json(self.a),
            "b": _place_json(self.b),
            "difference_bytes": self.difference_bytes,
            "terms": [term.as_json() for term in self.terms],
        }


@dataclass(frozen=True, slots=True)
class Figure:
    """Something that is counted on both sides beside the terms.

    Attributes
    ----------
    name
        `cache_needed_bytes`, or a key of the published capacity.
    a, b
        Its values; None where a side has none.
    reasons
        Why they differ, in the figure's unit; empty if they do not.
    """

    name: str
    a: float | None
    b: float | None
    reasons: tuple[Reason, ...] = ()

    @property
    def difference(self) -> float | None:
        """B less A; None if a side has no value."""
        return None if self.a is None or self.b is None else self.b - self.a

    def as_json(self) -> dict[str, Any]:
        """The figure as the published JSON has it."""
        a, b, difference = (_rounded(value) for value in (self.a, self.b, self.difference))
        reasons = [reason.as_json() for reason in self.reasons]
        return {"name": self.name, "a": a, "b": b, "difference": difference, "reasons": reasons}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers and what lies between them.

    Attributes
    ----------
    a, b
        The two estimates.
    summary
        What the difference means, in a few sentences.
    facts
        In what the two questions differ: model, format, engine, devices, settings.
    changes
        What the engine does differently in the newer of two versions; empty for different engines.
    device, host
        The fullest device of each side, and the hosts.
    figures
        Cache that is needed and room that there is.
    """

    a: Estimate
    b: Estimate
    summary: tuple[str, ...]
    facts: tuple[Fact, ...]
    changes: tuple[str, ...]
    device: PlaceChange
    host: PlaceChange
    figures: tuple[Figure, ...]

    def as_json(self) -> dict[str, Any]:
        """The comparison as the published JSON has it; `a` and `b` are the estimates as they are alone."""
        return {
            "a": self.a.as_json(),
            "b": self.b.as_json(),
            "summary": list(self.summary),
            "differs": [fact.as_json() for fact in self.facts],
            "engine_changes": list(self.changes),
            "device": self.device.as_json(),
            "host": self.host.as_json(),
            "figures": [figure.as_json() for figure in self.figures],
        }


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(text for text in texts if text)


def _rounded(value: float | None) -> float | None:
    return round(value, 4) if isinstance(value, float) else value


def _place_json(place: DeviceEstimate) -> dict[str, Any]:
    return {
        "name": place.name,
        "index": place.index,
        "usable_bytes": place.usable_bytes,
        "peak_bytes": place.peak_bytes,
    }
