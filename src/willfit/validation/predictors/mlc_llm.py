"""Predictions for cases of MLC-LLM: what it logs of parameters, plans and caches, and what a driver's tool shows."""

from __future__ import annotations

from typing import Any

from willfit.engines import mlc_llm
from willfit.engines.mlc_llm.account import Account
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.predictors.exllama import subject_of_conversion
from willfit.validation.predictors.serving import machine_of, settings_from
from willfit.validation.scoring import Prediction

#: Keys of cases, and MLC-LLM's own.
_NAMES = {
    "tensor_parallel": "tensor_parallel_shards",
    "chunk_size": "config_prefill_chunk_size",
    "max_batch_size": "config_max_batch_size",
    "cache_size": "context_window_size",
    "prefill_step_size": "prefill_chunk_size",
}


def predict(case: Case) -> dict[str, Any]:
    """`Parameters`, `Temporary buffer`, `max KV cache token capacity`; see `scoring.Predictor`.

    Raises
    ------
    Unpredictable
        If no config of the model is known, or its card is not stated.
    """
    known = mlc_llm.Settings.__dataclass_fields__
    settings = mlc_llm.Settings(**settings_from(case, known, _NAMES))
    subject, machine = subject_of_conversion(case), machine_of(case)
    account = Account(subject, machine, settings)
    found = mlc_llm.estimate(subject, machine, settings)
    place = max(found.devices, key=lambda one: one.peak_bytes)
    less, more = account.weights_interval
    likely, low, high = (size / GIB for size in account.planned_bytes)
    tokens = [float(count) for count in account.tokens]
    cache = [(count * account.token + account.attention) / GIB for count in account.tokens]
    used = Prediction(place.peak_bytes / GIB, place.interval_bytes[0] / GIB, place.interval_bytes[1] / GIB)
    return {
        "weights_gib": Prediction(account.weights / GIB, less / GIB, more / GIB),
        "activation_peak_gib": Prediction(likely, low, high),
        "kv_cache_tokens": Prediction(*tokens),
        "kv_cache_gib": Prediction(*cache),
        "nvidia_smi_gib": used,
        "ambiguous_gib": used,
    }
