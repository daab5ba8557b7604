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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from willfit.validation.fits.joint import JointFit, Solved
from willfit.validation.scoring import Unpredictable, quantile

#: Modules in `fits/`, each with its `FITS`.
MODULES: tuple[str, ...] = (
    "generic",
    "transformers",
    "context",
    "llama_cpp",
    "vllm",
    "sglang",
    "borrowed",
    "ollama",
    "training",
    "speed",
    "training_speed",
)

#: From this many observations on, their own 5 % and 95 % quantiles are used.
_ENOUGH = 20

#: From this many on, one of twenty among one more is one of them.
_RANKED = 19

#: Below this many the interval holds all of them: two of three that agree need not be independent.
_FEW = 5

#: Quantiles of the residuals that are published, in percent.
_RESIDUALS = (5, 25, 50, 75, 95)

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
    fitted, unseen = fit_all(cases)
    if unseen:
        raise BadInput(f"no case says anything about the constant {unseen[0]}", "give all files of cases")
    body = {
        "about": (
            "Fitted by `willfit calibrate`: median and middle 90 % of what published measurements show, quantiles of "
            "their residuals (percent of them that lie below), and the date of the newest."
        ),
        "constants": {name: fitted[name].as_json() for name in sorted(fitted)},
    }
    return json.dumps(body, indent=1) + "\n"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A constant with what it rests on.

    Attributes
    ----------
    residuals
        Quantiles of the observations less the constant, by percent.
    date
        Of the newest measurement; empty if none is dated, or if models show it, not measurements.
    """

    constant: Constant
    residuals: Mapping[int, float]
    date: str

    def as_json(self) -> dict[str, Any]:
        """As `calibration.json` has it."""
        return {
            "value": self.constant.value,
            "low": self.constant.low,
            "high": self.constant.high,
            "unit": self.constant.unit,
            "cases": self.constant.cases,
            "residuals": {f"{percent}": value for percent, value in self.residuals.items()},
            "date": self.date,
        }


def fit_constants(cases: Sequence[Case]) -> dict[str, Constant]:
    """The constants that some cases give; one that none of them says anything about is left out."""
    return {name: one.constant for name, one in fit_all(cases)[0].items()}


def fit_all(cases: Sequence[Case]) -> tuple[dict[str, Fitted], list[str]]:
    """The constants that some cases give, and the names of those that none of them says anything about."""
    fitted: dict[str, Fitted] = {}
    unseen = []
    for name in MODULES:
        fits: tuple[Fit | CatalogueFit | JointFit, ...] = import_module(
            f"willfit.validation.fits.{name}"
        ).FITS
        for fit in fits:
            if isinstance(fit, JointFit):
                with fitting({known: one.constant for known, one in fitted.items()}):
                    solved = fit.solve(cases)
                date = max((_date(case) for case in cases if fit.about(case)), default="")
                fitted |= {one: _as_fitted(one, fit.units[one], found, date) for one, found in solved.items()}
                unseen += [one for one in fit.units if one not in solved]
                continue
            with fitting({known: one.constant for known, one in fitted.items()}):
                found = _fitted(fit, cases)
            if found is None:
                unseen.append(fit.name)
            else:
                fitted[fit.name] = found
    return fitted, unseen


def _fitted(fit: Fit | CatalogueFit, cases: Sequence[Case]) -> Fitted | None:
    things: Sequence[Any] = cases
    if isinstance(fit, CatalogueFit):
        things = [entry for name in catalogue_ids() if (entry := find(name)) is not None]
    observed = [(value, thing) for thing in things if (value := _observed(fit, thing)) is not None]
    if not observed:
        return None
    if isinstance(fit, Fit) and fit.once_for:
        observed = _grouped(observed, fit.once_for)
    seen = sorted(value for value, _ in observed)
    value = median(seen)
    conformal = isinstance(fit, Fit) and fit.conformal
    low, high = _conformal_interval(seen) if conformal else _interval(seen, value)
    if low < 0 <= seen[0]:
        # A size that is never zero may lie as many times below as above.
        low = min(seen[0], value * value / high)
    constant = Constant(fit.name, _digits(value), _digits(low), _digits(high), fit.unit, len(seen))
    residuals = {percent: _digits(quantile(seen, percent / 100) - value) for percent in _RESIDUALS}
    dates = [_date(thing) for _, thing in observed if isinstance(thing, Case)]
    return Fitted(constant, residuals, max(dates, default=""))


def _as_fitted(name: str, unit: str, solved: Solved, date: str) -> Fitted:
    """A constant that was found together with others."""
    value, low, high = (_digits(one) for one in (solved.value, solved.low, solved.high))
    seen = sorted(solved.seen)
    residuals = {percent: _digits(quantile(seen, percent / 100) - solved.value) for percent in _RESIDUALS}
    return Fitted(Constant(name, value, low, high, unit, solved.cases), residuals, date)


def _grouped(observed: list[tuple[float, Any]], key: str) -> list[tuple[float, Any]]:
    """One observation for each value of a field, the median, with the newest of its cases."""
    groups: dict[str, list[tuple[float, Any]]] = {}
    for value, case in observed:
        groups.setdefault(str(case.fields.get(key)), []).append((value, case))
    return [
        (median(value for value, _ in group), max((case for _, case in group), key=_date))
        for group in groups.values()
    ]


def _date(case: Case) -> str:
    return str(case.fields.get("date") or "")


def _interval(seen: list[float], value: float) -> tuple[float, float]:
    """The interval that 90 % of further observations are expected in.

    Few observations have no quantiles of their own to speak of: the interval then holds what their spread suggests,
    taken from the median absolute deviation and widened for their small number, and all of them, but for the
    outermost on each side once they are enough for one to be odd.
    """
    if len(seen) >= _ENOUGH:
        return quantile(seen, 0.05), quantile(seen, 0.95)
    spread = _Z90 * _PER_MAD * median(abs(one - value) for one in seen) * (1 + 2 / len(seen))
    inner = seen if len(seen) < _FEW else seen[1:-1]
    return min(value - spread, inner[0]), max(value + spread, inner[-1])


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
