"""Predictions for cases of fastLLM: what the driver's tool shows of a card, and what lies in RAM."""

from __future__ import annotations

import ast
from typing import Any

from willfit.engines import fastllm
from willfit.estimate import combined
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.predictors.exllama import subject_of_conversion
from willfit.validation.predictors.serving import machine_of
from willfit.validation.scoring import Prediction


def predict(case: Case) -> dict[str, Any]:
    """The fullest card, and the RAM; see `scoring.Predictor`.

    Raises
    ------
    Unpredictable
        If no config of the model is known, or its card is not stated.
    """
    given = case.settings
    shares = ast.literal_eval(str(given.get("moe_device", "{}")))
    settings = fastllm.Settings(
        version=str(case.fields.get("engine_version") or fastllm.NEWEST),
        context=given.get("input_len"),
        moe_device=tuple(shares.items()),
        moe_dtype=given.get("moe_dtype") or "",
        kv_cache_dtype=given.get("kv_cache_dtype") or "auto",
    )
    found = fastllm.estimate(subject_of_conversion(case), machine_of(case), settings, given.get("batch", 1))
    place = max(found.devices, key=lambda one: one.peak_bytes)
    host, low, high = combined(found.host.terms)
    return {
        "nvidia_smi_gib": Prediction(
            place.peak_bytes / GIB, place.interval_bytes[0] / GIB, place.interval_bytes[1] / GIB
        ),
        "host_ram_gib": Prediction(host / GIB, low / GIB, high / GIB),
    }
