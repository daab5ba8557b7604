"""Predictions for logs of LM Studio: its runtimes print what llama.cpp prints."""

from __future__ import annotations

from typing import Any, get_args

from willfit.engines.llama_cpp.settings import Backend
from willfit.engines.lmstudio import Settings, estimate
from willfit.engines.lmstudio.eras import NEWEST
from willfit.engines.lmstudio.settings import CONTEXT
from willfit.validation.cases import Case
from willfit.validation.predictors.llama_cpp import figures, in_log, machine_of, subject_of


def predict(case: Case) -> dict[str, Any]:
    """Buffers of a runtime; see `scoring.Predictor`.

    Raises
    ------
    Unpredictable
        If the model is not known.
    """
    subject = subject_of(case)
    return in_log(case, figures(case, subject, estimate(subject, machine_of(case), settings_of(case))))


def settings_of(case: Case) -> Settings:
    """The case's settings in LM Studio's words; what it leaves open is LM Studio's choice."""
    given = case.settings
    layers = given.get("n_gpu_layers")
    backend = given.get("backend", "cpu")
    flash = given.get("flash_attn")
    name: Backend = next((one for one in get_args(Backend) if one == backend), "vulkan")
    return Settings(
        version=str(case.fields.get("engine_version") or NEWEST),
        context_length=given.get("n_ctx", CONTEXT),
        gpu_ratio=1 if layers == "all" else None,
        gpu_layers=layers if isinstance(layers, int) else None,
        parallel=given.get("n_parallel"),
        eval_batch_size=given.get("n_batch"),
        flash_attention=flash if isinstance(flash, bool) else None,
        k_cache_type=given.get("cache_type_k", "f16"),
        v_cache_type=given.get("cache_type_v", "f16"),
        offload_kv_cache=given.get("offload_kqv", True),
        try_mmap=given.get("mmap", True),
        backend=name,
    )
