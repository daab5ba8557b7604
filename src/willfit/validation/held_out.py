"""Scoring with constants that never saw the model in question.

A constant is fitted to published measurements, so a score over the same measurements flatters it. Here the cases are
dealt into folds by model, and each fold is predicted with constants fitted to the other folds alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from willfit.calibration import Constant, fitting
from willfit.validation.calibrate import fit_constants
from willfit.validation.cases import Case
from willfit.validation.scoring import Predictor

#: Parts that the models are dealt into.
FOLDS = 5


def constants_by_fold(cases: Sequence[Case]) -> tuple[dict[str, Constant], ...]:
    """For each fold the constants that the other folds' cases give.

    A constant that they leave without an observation is neutral: 1 for a ratio, 0 for bytes.
    """
    return tuple(
        fit_constants([case for case in cases if case.scored and fold_of(case) != fold])
        for fold in range(FOLDS)
    )


def hold_out(
    constants: Sequence[Mapping[str, Constant]], predictor_for: Callable[[Case], Predictor]
) -> Callable[[Case], Predictor]:
    """What `predictor_for` finds, working with constants fitted to other models' cases.

    Parameters
    ----------
    constants
        By fold, as `constants_by_fold` gives them.
    """

    def find(case: Case) -> Predictor:
        predict = predictor_for(case)

        def predict_held_out(case: Case) -> dict[str, Any]:
            with fitting(constants[fold_of(case)]):
                return predict(case)

        return predict_held_out

    return find


def fold_of(case: Case) -> int:
    """The fold of a case, which is that of its model; the same on every machine."""
    return sha256(str(case.fields.get("model")).encode()).digest()[0] % FOLDS
