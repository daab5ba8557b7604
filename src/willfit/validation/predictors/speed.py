"""Speeds of serving, beside whatever else a case measured."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from willfit.errors import BadInput
from willfit.speed.certainty import certainty_of
from willfit.validation.cases import Case
from willfit.validation.scoring import Prediction, Predictor, Unpredictable
from willfit.validation.speed_cases import KEYS, run_of


def with_speed(predict: Predictor) -> Predictor:
    """A predictor that also predicts the speeds that a case measured; these alone where it measured nothing else."""

    def predict_all(case: Case) -> dict[str, Any]:
        asked = KEYS & case.measured.keys()
        if not asked:
            return predict(case)
        if asked == case.measured.keys():
            return speeds_of(case)
        found = predict(case)
        with suppress(Unpredictable, BadInput):
            found |= speeds_of(case)
        return found

    return predict_all


def speeds_of(case: Case) -> dict[str, Any]:
    """Tokens per second by measured key.

    Raises
    ------
    Unpredictable
        If lengths, model or card are not known.
    """
    run = run_of(case)
    sure = certainty_of(run.engine, run.version, (run.device,))
    return {
        key: Prediction(*(speed * factor for factor in (sure.value, sure.low, sure.high)))
        for key, speed in run.speeds().items()
        if key in case.measured
    }
