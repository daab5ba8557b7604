"""Predictions for cases of TensorRT-LLM: what it logs at start-up."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from willfit.engines.tensorrt_llm import Settings
from willfit.engines.tensorrt_llm.sizing import size_up
from willfit.validation.cases import Case
from willfit.validation.predictors.serving import machine_of, paged_figures, settings_from
from willfit.validation.predictors.vllm import subject_of

#: The case's key -> the setting.
_NAMES = {
    "tensor_parallel": "tensor_parallel_size",
    "pipeline_parallel": "pipeline_parallel_size",
    "expert_parallel_size": "moe_expert_parallel_size",
    "kv_cache_free_gpu_mem_fraction": "free_gpu_memory_fraction",
    "max_num_requests": "max_batch_size",
}


def predict(case: Case) -> dict[str, Any]:
    """The cache that TensorRT-LLM logs at start-up; see `scoring.Predictor`.

    Raises
    ------
    Unpredictable
        If no config of the model is known, or its card is not stated.
    """
    subject = subject_of(case)
    sizing = size_up(subject, machine_of(case), settings_of(case))
    return paged_figures(sizing.cache, sizing.pool_bytes, sizing.pool_interval)


def settings_of(case: Case) -> Settings:
    """The case's settings under TensorRT-LLM's names."""
    return Settings(**settings_from(case, {field.name for field in fields(Settings)}, _NAMES))
