"""What LM Studio is told, in the words of its load configuration."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.llama_cpp.settings import Backend, Drafting
from willfit.engines.lmstudio.eras import NEWEST

#: Tokens of a context where none are given, by the program or for the model.
CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model is loaded; None leaves the choice to LM Studio.

    Attributes
    ----------
    version
        Of LM Studio (`0.3.32`) or of a runtime (`1.44.0`).
    context_length
        Tokens of all predictions that run at once.
    gpu_ratio
        Share of the layers on devices: 1 for all.
    gpu_layers
        The same as a number, for a log that says it.
    parallel
        Predictions at once.
    eval_batch_size
        Tokens of a batch.
    flash_attention, k_cache_type, v_cache_type, offload_kv_cache, try_mmap
        As llama.cpp has them.
    backend
        Of the runtime; None for that of the devices.
    drafting
        None without.
    """

    version: str = NEWEST
    context_length: int = CONTEXT
    gpu_ratio: float | None = None
    gpu_layers: int | None = None
    parallel: int | None = None
    eval_batch_size: int | None = None
    flash_attention: bool | None = None
    k_cache_type: str = "f16"
    v_cache_type: str = "f16"
    offload_kv_cache: bool = True
    try_mmap: bool = True
    backend: Backend | None = None
    drafting: Drafting | None = None
