"""What a fitted constant is observed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from willfit.validation.cases import Case


@dataclass(frozen=True, slots=True)
class Fit:
    """One constant of `calibration.json`.

    Attributes
    ----------
    name
        Its name there.
    unit
        `bytes` or `ratio`.
    observe
        One observation of it from a case; None if the case says nothing about it.
    """

    name: str
    unit: str
    observe: Callable[[Case], float | None]
