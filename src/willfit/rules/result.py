"""What a rule of thumb returns: its number with the sum behind it, and why a real estimate differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

_NOTHING: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RuleResult:
    """A rule of thumb applied to given numbers.

    Attributes
    ----------
    name
        What the rule is called here.
    inputs
        The numbers that went in, by name.
    value, unit
        The result: bytes (an integer) with unit `B`, or a number with its own unit.
    formula
        The rule with the numbers filled in.
    why
        One sentence: what it leaves out.
    source
        Who publishes the rule.
    parts
        The summands by name, where it is a sum.
    """

    name: str
    inputs: Mapping[str, float | str]
    value: float
    unit: str
    formula: str
    why: str
    source: str
    parts: Mapping[str, int] = field(default_factory=lambda: _NOTHING)

    def as_json(self) -> dict[str, Any]:
        """The result as JSON."""
        return {
            "name": self.name,
            "inputs": dict(self.inputs),
            "value": self.value,
            "unit": self.unit,
            "formula": self.formula,
            "why": self.why,
            "source": self.source,
            "parts": dict(self.parts),
        }
