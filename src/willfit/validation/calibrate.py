"""Fitting the constants that no rule gives.

A constant is the median of what published measurements say of it; its interval holds the middle 90 % of them,
widened where there are few. The same files give the same constants, digit for digit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from math import floor, log10
from pathlib import Path
from statistics import median
from typing import Any

from willfit.errors import BadInput
from willfit.validation.cases import Case, read_cases
from willfit.validation.fits.base import Fit
from willfit.validation.scoring import Unpredictable, quantile

#: Modules in `fits/`, each with its `FITS`.
MODULES: tuple[str, ...] = ("transformers", "vllm")

#: Fewer observations than this cannot show 5 % and 95 % quantiles; the interval is widened instead.
_ENOUGH = 20


def calibration_of(files: Sequence[Path]) -> str:
    """The text of `calibration.json` for some files of cases.

    Raises
    ------
    BadInput
        If a file cannot be read, or a constant has no observation in them.
    """
    cases = [case for file in files for case in read_cases(file) if case.scored]
    constants: dict[str, dict[str, Any]] = {}
    for name in MODULES:
        fits: tuple[Fit, ...] = import_module(f"willfit.validation.fits.{name}").FITS
        for fit in fits:
            constants[fit.name] = _fitted(fit, cases)
    body = {
        "about": "Fitted by `willfit calibrate`: median and middle 90 % of what published measurements show.",
        "constants": dict(sorted(constants.items())),
    }
    return json.dumps(body, indent=1) + "\n"


def _fitted(fit: Fit, cases: Sequence[Case]) -> dict[str, Any]:
    seen = sorted(value for case in cases if (value := _observed(fit, case)) is not None)
    if not seen:
        raise BadInput(f"no case says anything about the constant {fit.name}", "give all files of cases")
    value = median(seen)
    low, high = quantile(seen, 0.05), quantile(seen, 0.95)
    if len(seen) < _ENOUGH:
        # Of n observations the largest is exceeded by the next one with probability 1 / (n + 1).
        widen = 1 + 2 / (len(seen) + 1)
        low, high = value - (value - seen[0]) * widen, value + (seen[-1] - value) * widen
    return {
        "value": _digits(value),
        "low": _digits(max(low, 0.0)),
        "high": _digits(high),
        "unit": fit.unit,
        "cases": len(seen),
    }


def _observed(fit: Fit, case: Case) -> float | None:
    try:
        return fit.observe(case)
    except (Unpredictable, BadInput):
        return None


def _digits(value: float) -> float:
    """Four digits: no more is known."""
    if value == 0:
        return 0.0
    rounded = round(value, 3 - floor(log10(abs(value))))
    return int(rounded) if rounded == int(rounded) else rounded
