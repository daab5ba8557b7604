"""Speeds of serving, beside whatever else a case measured."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from willfit.errors import BadInput
from willfit.speed.certainty import certainty_of, certainty_of_training
from willfit.validation.cases import Case
from willfit.validation.scoring import Prediction, Predictor, Unpredictable
from willfit.validation.speed_cases import KEYS, run_of
from willfit.validation.training_speeds import KEYS as TRAINING_KEYS
from willfit.validation.training_speeds import TIMES, training_run_of


def with_speed(predict: Predictor) -> Predictor:
    """A predictor that also predicts the speeds that a case measured; these alone where it measured nothing else."""

    def predict_all(case: Case) -> dict[str, Any]:
        asked = (TRAINING_KEYS if case.kind == "train" else KEYS) & case.measured.keys()
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
    if case.kind == "train":
        return _of_training(case)
    run = run_of(case)
    sure = certainty_of(run.engine, run.version, (run.device,), run.batch)
    return {
        key: Prediction(*(speed * factor for factor in (sure.value, sure.low, sure.high)))
        for key, speed in run.speeds().items()
        if key in case.measured
    }


def _of_training(case: Case) -> dict[str, Any]:
    run = training_run_of(case)
    sure = certainty_of_training()
    found = {}
    for key, speed in run.speeds().items():
        if key not in case.measured:
            continue
        if key in TIMES:
            found[key] = Prediction(speed / sure.value, speed / sure.high, speed / sure.low)
        else:
            found[key] = Prediction(speed * sure.value, speed * sure.low, speed * sure.high)
    return found
