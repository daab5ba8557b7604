"""Predictions for cases of TensorRT-LLM: what it logs at start-up."""

from __future__ import annotations

from typing import Any

from willfit.engines.base import Machine
from willfit.engines.tensorrt_llm import Settings
from willfit.engines.tensorrt_llm.sizing import size_up
from willfit.hardware.table import find_device
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.predictors.vllm import subject_of
from willfit.validation.scoring import Prediction, Unpredictable

#: The case's key -> the setting.
_NAMES = {
    "backend": "backend",
    "tensor_parallel": "tensor_parallel_size",
    "pipeline_parallel": "pipeline_parallel_size",
    "kv_cache_free_gpu_mem_fraction": "free_gpu_memory_fraction",
    "kv_cache_dtype": "kv_cache_dtype",
    "tokens_per_block": "tokens_per_block",
    "max_batch_size": "max_batch_size",
    "max_num_requests": "max_batch_size",
    "max_num_tokens": "max_num_tokens",
    "max_seq_len": "max_seq_len",
}


def predict(case: Case) -> dict[str, Any]:
    """The cache that TensorRT-LLM logs at start-up; see `scoring.Predictor`.

    Raises
    ------
    Unpredictable
        If no config of the model is known, or its card is not stated.
    """
    subject = subject_of(case)
    given: dict[str, Any] = {
        name: case.settings[key] for key, name in _NAMES.items() if case.settings.get(key) is not None
    }
    if case.fields.get("engine_version"):
        given["version"] = str(case.fields["engine_version"])
    settings = Settings(**given)
    gpu = case.fields.get("gpu")
    if not isinstance(gpu, str):
        raise Unpredictable("the source does not name the card")
    ranks = settings.sharding.ranks
    sizing = size_up(subject, Machine((find_device(gpu),) * ranks), settings)
    sizes = (sizing.pool_bytes, *sizing.pool_interval)
    return {
        "kv_cache_tokens": Prediction(*(float(sizing.cache.tokens(size)) for size in sizes)),
        "kv_cache_gib": Prediction(*(sizing.cache.allocated(size) / GIB for size in sizes)),
    }
