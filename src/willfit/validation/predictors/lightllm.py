"""Predictions for cases of LightLLM: the slots that it logs at start-up."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from willfit.engines.lightllm import Settings
from willfit.engines.lightllm.sizing import size_up
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.predictors.serving import DEGREES, known_only, machine_of, settings_from, whole
from willfit.validation.predictors.vllm import subject_of
from willfit.validation.scoring import Prediction

_POOL = ("kv_cache_tokens", "kv_cache_gib")


def predict(case: Case) -> dict[str, Any]:
    """`the profiled max_total_token_num`, and a token's size; see `scoring.Predictor`.

    Raises
    ------
    Unpredictable
        If no config of the model is known, or its card is not stated.
    """
    subject = subject_of(case)
    settings = Settings(**settings_from(case, {field.name for field in fields(Settings)}, DEGREES))
    sizing = size_up(subject, machine_of(case), settings)
    slot = sizing.slot_bytes
    counts = [max(0, size) // slot for size in (sizing.pool_bytes, *sizing.pool_interval)]
    found = {
        "kv_bytes_per_token": whole(float(slot)),
        "kv_cache_tokens": Prediction(*(float(count) for count in counts)),
        "kv_cache_gib": Prediction(*((count + 1) * slot / GIB for count in counts)),
    }
    return known_only(case, "mem_fraction", found, _POOL)
