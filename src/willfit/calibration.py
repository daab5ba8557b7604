"""The constants that no rule gives, each with the spread of the measurements behind it.

`calibration.json` is written by `willfit calibrate`; nothing else in the code holds a fitted number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class Constant:
    """One fitted constant.

    Attributes
    ----------
    name
        Such as `vllm.non_torch.one_rank`.
    value
        The median of what was observed.
    low, high
        The interval that 90 % of further observations are expected in.
    unit
        `bytes` or `ratio`.
    cases
        How many published measurements it rests on.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str
    cases: int

    @property
    def reference(self) -> str:
        """How a term that uses the constant cites it."""
        return f"calibration.json: {self.name} (median of {self.cases} published measurements)"


@cache
def _constants() -> dict[str, dict[str, Any]]:
    import json

    text = files("willfit").joinpath("calibration.json").read_text(encoding="utf-8")
    constants: dict[str, dict[str, Any]] = json.loads(text)["constants"]
    return constants


@cache
def constant(name: str) -> Constant:
    """A constant by name.

    Raises
    ------
    KeyError
        If there is none of that name: a defect in the code that asks, not in what the user gave.
    """
    fields = _constants()[name]
    return Constant(name, fields["value"], fields["low"], fields["high"], fields["unit"], fields["cases"])
