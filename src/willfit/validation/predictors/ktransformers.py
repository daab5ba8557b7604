"""Predictions for cases of KTransformers: what the driver's tool shows of a card, and what lies in RAM."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from willfit.engines import ktransformers, sglang
from willfit.engines.base import Machine, Subject
from willfit.engines.ktransformers import Settings
from willfit.estimate import combined
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.predictors.exllama import subject_of_conversion
from willfit.validation.predictors.serving import machine_of
from willfit.validation.scoring import Prediction, hull

#: How a case's settings are called by SGLang.
_SERVING = {
    "tensor_parallel": "tp_size",
    "input_len": "context_length",
    "mem_fraction_static": "mem_fraction_static",
    "prefill_step_size": "chunked_prefill_size",
}

#: Parts of prompts where their length is not stated.
_SHORT = 256


def predict(case: Case) -> dict[str, Any]:
    """The fullest card, and the RAM; see `scoring.Predictor`.

    Raises
    ------
    Unpredictable
        If no config of the model is known, or its card is not stated.
    """
    subject, machine, given = subject_of_conversion(case), machine_of(case), case.settings
    settings = Settings(version=str(case.fields.get("engine_version") or ktransformers.NEWEST))
    if settings.program == "sglang":
        named = {_SERVING[name]: value for name, value in given.items() if name in _SERVING}
        settings = replace(
            settings,
            sglang=sglang.Settings(version=settings.serving.version, **named),
            kt_method=given.get("expert_method") or settings.kt_method,
            kt_num_gpu_experts=given.get("gpu_experts", settings.kt_num_gpu_experts),
        )
    else:
        settings = replace(
            settings,
            backend_type=given.get("program"),
            cache_lens=given.get("cache_size"),
            chunk_size=given.get("chunk_size"),
            experts=given.get("expert_method") or settings.experts,
            numa_copies=given.get("host_copies", 0),
        )
    card, host = _held(subject, machine, settings)
    if "chunk_size" in case.unknown_settings:
        card = hull(card, _held(subject, machine, replace(settings, chunk_size=_SHORT))[0])
    found = {"nvidia_smi_gib": card, "host_ram_gib": host}
    second = (case.fields.get("ambiguous") or {}).get("what") == "unknown"
    return {**found, "ambiguous_gib": host if second else card}


def _held(subject: Subject, machine: Machine, settings: Settings) -> tuple[Prediction, Prediction]:
    """The fullest card, and the RAM with what is mapped."""
    found = ktransformers.estimate(subject, machine, settings)
    place = max(found.devices, key=lambda one: one.peak_bytes)
    host, low, high = combined((*found.host.terms, *found.host.page_cache))
    return (
        Prediction(place.peak_bytes / GIB, place.interval_bytes[0] / GIB, place.interval_bytes[1] / GIB),
        Prediction(host / GIB, low / GIB, high / GIB),
    )
