"""Predictions for cases of mlx-lm: what `mx.get_peak_memory` counts, which its programs print."""

from __future__ import annotations

from typing import Any

from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.engines.base import Subject
from willfit.engines.mlx import Settings, estimate
from willfit.engines.subject import subject_from_config
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.predictors.serving import machine_of, settings_from
from willfit.validation.predictors.vllm import subject_of
from willfit.validation.scoring import Prediction

#: Keys of cases that mlx-lm calls otherwise.
_NAMES = {"input_len": "prompt_tokens", "output_len": "max_tokens"}

#: The driver's context is no allocation of MLX.
_OUTSIDE = ("context",)

_KNOWN = frozenset(Settings.__dataclass_fields__)


def predict(case: Case) -> dict[str, Any]:
    """What mlx-lm prints of its memory; see `scoring.Predictor`.

    Raises
    ------
    Unpredictable
        If no config of the model is known, or the device is not stated.
    """
    given = settings_from(case, _KNOWN, _NAMES)
    settings = Settings(**{**given, "program": "benchmark"})
    found = estimate(_subject(case), machine_of(case), settings)
    terms = [term for term in found.devices[0].terms if term.name not in _OUTSIDE]
    low, size, high = (
        sum(getattr(term, name) for term in terms) / GIB for name in ("low_bytes", "bytes", "high_bytes")
    )
    weights = next((term for term in terms if term.name == "weights"), None)
    predicted = {"peak_allocated_gib": Prediction(size, low, high)}
    if weights is not None:
        predicted["weights_gib"] = Prediction(
            *(getattr(weights, name) / GIB for name in ("bytes", "low_bytes", "high_bytes"))
        )
    return predicted


def _subject(case: Case) -> Subject:
    """The case's model; a conversion's format stands in the place of that of the model it was made of."""
    stored, entry = case.fields.get("checkpoint_format"), find(str(case.fields.get("catalogue")))
    if stored is None or entry is None:
        return subject_of(case)
    return subject_from_config(str(case.fields.get("model")), Config(entry.config, entry.id), str(stored))
