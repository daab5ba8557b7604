"""Fitting the constants that no rule gives.

A constant is the median of what published measurements say of it; its interval holds the middle 90 % of them,
or what their spread suggests where there are few. Constants are fitted one after another, each with those before
it in force, so the same files give the same constants, digit for digit.

An engine that sizes its cache by what is left over has one constant more, fitted last: by how much, in shares of the
budget, logged caches missed the interval that all terms together give. Its middle 90 % widens that interval, so that
about nine of ten logged caches lie within it: split conformal prediction, with its ranks among one observation more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from math import floor, log10
from pathlib import Path
from statistics import median
from typing import Any

from willfit.calibration import Constant, fitting
from willfit.checkpoints.catalogue import catalogue_ids, find
from willfit.errors import BadInput
from willfit.validation.cases import Case, read_cases
from willfit.validation.fits.base import CatalogueFit, Fit
from willfit.validation.scoring import Unpredictable, quantile

#: Modules in `fits/`, each with its `FITS`.
MODULES: tuple[str, ...] = ("generic", "transformers", "vllm", "sglang")

#: From this many observations on, their own 5 % and 95 % quantiles are used.
_ENOUGH = 20

#: From this many on, one of twenty among one more is one of them.
_RANKED = 19

#: Below this many the interval holds all of them: two of three that agree need not be independent.
_FEW = 5

#: Half the width of a normal 90 % interval in standard deviations, and the deviation of one whose MAD is 1.
_Z90, _PER_MAD = 1.645, 1.4826


def calibration_of(files: Sequence[Path]) -> str:
    """The text of `calibration.json` for some files of cases.

    Raises
    ------
    BadInput
        If a file cannot be read, or a constant has no observation in them.
    """
    cases = [case for file in files for case in read_cases(file) if case.scored]
    constants, unseen = fit_constants(cases)
    if unseen:
        raise BadInput(f"no case says anything about the constant {unseen[0]}", "give all files of cases")
    body = {
        "about": "Fitted by `willfit calibrate`: median and middle 90 % of what published measurements show.",
        "constants": {name: _as_json(constants[name]) for name in sorted(constants)},
    }
    return json.dumps(body, indent=1) + "\n"


def fit_constants(cases: Sequence[Case]) -> tuple[dict[str, Constant], list[str]]:
    """The constants that some cases give, and the names of those that none of them says anything about."""
    constants: dict[str, Constant] = {}
    unseen = []
    for name in MODULES:
        fits: tuple[Fit | CatalogueFit, ...] = import_module(f"willfit.validation.fits.{name}").FITS
        for fit in fits:
            with fitting(constants):
                fitted = _fitted(fit, cases)
            if fitted is None:
                unseen.append(fit.name)
            else:
                constants[fit.name] = fitted
    return constants, unseen


def _fitted(fit: Fit | CatalogueFit, cases: Sequence[Case]) -> Constant | None:
    things: Sequence[Any] = cases
    if isinstance(fit, CatalogueFit):
        things = [entry for name in catalogue_ids() if (entry := find(name)) is not None]
    seen = sorted(value for thing in things if (value := _observed(fit, thing)) is not None)
    if not seen:
        return None
    value = median(seen)
    conformal = isinstance(fit, Fit) and fit.conformal
    low, high = _conformal_interval(seen) if conformal else _interval(seen, value)
    if seen[0] >= 0:
        low = max(low, 0.0)
    return Constant(fit.name, _digits(value), _digits(low), _digits(high), fit.unit, len(seen))


def _interval(seen: list[float], value: float) -> tuple[float, float]:
    """The interval that 90 % of further observations are expected in.

    Few observations have no quantiles of their own: their spread is then taken from the median absolute
    deviation, which a single odd measurement cannot move, and widened for their small number.
    """
    if len(seen) >= _ENOUGH:
        return quantile(seen, 0.05), quantile(seen, 0.95)
    spread = _Z90 * _PER_MAD * median(abs(one - value) for one in seen) * (1 + 2 / len(seen))
    if len(seen) < _FEW:
        return min(value - spread, seen[0]), max(value + spread, seen[-1])
    return value - spread, value + spread


def _conformal_interval(seen: list[float]) -> tuple[float, float]:
    """Between which nine of ten further observations lie: the ranks are those among one observation more.

    Fewer than 19 have no such ranks: the next may well lie outside all of them, so their range is widened for their
    small number, as the spread of others is.
    """
    if len(seen) < _RANKED:
        middle, wider = median(seen), 1 + 2 / len(seen)
        return middle - (middle - seen[0]) * wider, middle + (seen[-1] - middle) * wider
    rank = max(0.0, 0.05 * (len(seen) + 1) - 1) / max(1, len(seen) - 1)
    return quantile(seen, rank), quantile(seen, 1 - rank)


def _as_json(constant: Constant) -> dict[str, Any]:
    return {
        "value": constant.value,
        "low": constant.low,
        "high": constant.high,
        "unit": constant.unit,
        "cases": constant.cases,
    }


def _observed(fit: Fit | CatalogueFit, thing: Any) -> float | None:
    try:
        return fit.observe(thing)
    except (Unpredictable, BadInput):
        return None


def _digits(value: float) -> float:
    """Four digits: no more is known."""
    if value == 0:
        return 0.0
    rounded = round(value, 3 - floor(log10(abs(value))))
    return int(rounded) if rounded == int(rounded) else rounded
