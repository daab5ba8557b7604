"""The constants that no rule gives, each with the spread of the measurements behind it.

`calibration.json` is written by `willfit calibrate`; nothing else in the code holds a fitted number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent / "calibration.json"


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


#: While constants are being fitted: those that are fitted already.
_FITTING: ContextVar[Mapping[str, Constant] | None] = ContextVar("fitting", default=None)


def constant(name: str, general: str = "") -> Constant:
    """A constant by name.

    Parameters
    ----------
    general
        The constant for all that this one is for some of: it stands in where no case that is fitted to shows the
        special one.

    While constants are being fitted, one that is not fitted yet is neutral: 1 for a ratio or a share, else 0. So the
    result depends on the cases and on the order of the fits alone, never on an earlier calibration.

    Raises
    ------
    KeyError
        If there is none of that name: a defect in the code that asks, not in what the user gave.
    """
    fitting = _FITTING.get()
    if fitting is None:
        return _committed(name)
    if name not in fitting and general:
        return constant(general)
    neutral = 1.0 if "_ratio" in name or "_share" in name else 0.0
    return fitting.get(name) or Constant(name, neutral, neutral, neutral, "", 0)


@contextmanager
def fitting(constants: Mapping[str, Constant]) -> Iterator[None]:
    """Use these constants instead of the committed ones, and neutral values for all others."""
    token = _FITTING.set(constants)
    try:
        yield
    finally:
        _FITTING.reset(token)


@cache
def _committed(name: str) -> Constant:
    fields = _constants()[name]
    return Constant(name, fields["value"], fields["low"], fields["high"], fields["unit"], fields["cases"])


@cache
def _constants() -> dict[str, dict[str, Any]]:
    import json

    text = _FILE.read_text(encoding="utf-8")
    constants: dict[str, dict[str, Any]] = json.loads(text)["constants"]
    return constants
