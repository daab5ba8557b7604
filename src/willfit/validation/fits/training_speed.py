"""The constants of training speed: shares of peak rates, what flows between kernels, what launching them takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log

from willfit.calibration import constant, fitting
from willfit.errors import BadInput
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit
from willfit.validation.fits.joint import JointFit, Solved, in_force, least_squares
from willfit.validation.scoring import Unpredictable
from willfit.validation.training_speeds import TIMES, training_key, training_run_of

#: Where the search starts, with units.
_START: dict[str, tuple[float, str]] = {
    "speed.train.products_share": (0.7, "ratio"),
    "speed.train.products_share.narrow": (0.5, "ratio"),
    "speed.train.attention_share": (0.3, "ratio"),
    "speed.train.unpublished_ratio": (0.9, "ratio"),
    "speed.train.flow.eager": (40.0, "ratio"),
    "speed.train.flow.compiled": (20.0, "ratio"),
    "speed.train.layer": (1e-3, "s"),
}

#: Constants of serving that training uses too.
_SHARED = ("speed.attention_share",)


def _solve(cases: Sequence[Case]) -> dict[str, Solved]:
    runs = []
    for case in cases:
        key = training_key(case)
        if key is None:
            continue
        try:
            runs.append((case, key, training_run_of(case)))
        except (Unpredictable, BadInput):
            continue
    if not runs:
        return {}
    shared = {name: constant(name).value for name in _SHARED}

    def off(constants: Mapping[str, float]) -> list[float]:
        with fitting(in_force({**shared, **constants})):
            return [
                log(float(case.measured[key]) / run.speeds()[key]) * (1 if key in TIMES else -1)
                for case, key, run in runs
            ]

    start = {name: value for name, (value, _) in _START.items()}
    return least_squares(start, off, [case.fields.get("source") for case, _, _ in runs])


def _ratio(case: Case) -> float | None:
    """Measured over predicted speed."""
    key = training_key(case)
    if key is None:
        return None
    ratio = float(case.measured[key]) / training_run_of(case).speeds()[key]
    return 1 / ratio if key in TIMES else ratio


FITS = (
    JointFit(
        {name: unit for name, (_, unit) in _START.items()},
        lambda case: training_key(case) is not None and case.settings.get("seq_len_kind") == "exact",
        _solve,
    ),
    Fit("speed.ratio.train", "ratio", _ratio, conformal=True),
)
