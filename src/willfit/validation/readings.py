"""Where a repository's name leaves open how its weights are stored: an interval that holds every usual reading."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from willfit.formats.recognise import other_reading
from willfit.validation.cases import Case
from willfit.validation.predictors.vllm import format_of, subject_of
from willfit.validation.scoring import Predictor, Unpredictable, hull


def with_readings(predict: Predictor) -> Predictor:
    """A predictor whose intervals reach to the largest other reading of a format's name.

    `NVFP4` in a name does not say whether attention was quantized, `AWQ` not in how large groups. What is expected
    stays what the usual recipe makes.
    """

    def predict_all(case: Case) -> dict[str, Any]:
        found = predict(case)
        other = _largest(case)
        if other is None:
            return found
        fields = {**case.fields, "checkpoint_format": other}
        return {
            key: hull(value, predict(replace(case, fields=fields)).get(key)) for key, value in found.items()
        }

    return predict_all


def _largest(case: Case) -> str | None:
    """The largest other reading of the name of a case's format; None where config or name say it."""
    if case.fields.get("checkpoint_format") is None:
        return None
    try:
        named = format_of(case)
    except Unpredictable:
        return None
    return other_reading(named, subject_of(case).architecture) if named else None
