"""MLC-LLM's settings under its own names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.mlc_llm.eras import NEWEST, Era, era_for

Mode = Literal["local", "interactive", "server"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of `mlc_llm serve`; None leaves the choice to MLC-LLM.

    Attributes
    ----------
    mode
        `local` for a few sequences, `interactive` for one, `server` for as many as memory has room for.
    context_window_size
        Tokens of the longest sequence; None for the model's own.
    prefill_chunk_size
        Tokens of a part of a prompt; None for what the model's configuration has.
    max_num_sequence, max_total_seq_length
        Sequences at once, and tokens of the cache in all.
    gpu_memory_utilization
        Share of a card that MLC-LLM's own account may reach.
    tensor_parallel_shards
        Cards that divide matrices.
    config_prefill_chunk_size, config_max_batch_size
        What `mlc-chat-config.json` has; None for what MLC-LLM makes of a model's config.
    prefix_cache_mode
        `radix` keeps finished sequences, `disable` does not.
    opt
        Level of optimization the model is compiled with; O0 is without FlashInfer and CUDA graphs.
    """

    version: str = NEWEST
    mode: Mode = "local"
    context_window_size: int | None = None
    prefill_chunk_size: int | None = None
    max_num_sequence: int | None = None
    max_total_seq_length: int | None = None
    gpu_memory_utilization: float = 0.85
    tensor_parallel_shards: int = 1
    config_prefill_chunk_size: int | None = None
    config_max_batch_size: int | None = None
    prefix_cache_mode: Literal["radix", "disable"] = "radix"
    opt: str = "O2"

    @property
    def era(self) -> Era:
        """What holds for the version."""
        return era_for(self.version)

    @property
    def flashinfer(self) -> bool:
        """Whether the model is compiled with FlashInfer's kernels where a card has them."""
        return self.opt in ("O2", "O3") or "flashinfer=1" in self.opt

    @property
    def libraries(self) -> bool:
        """Whether plain matrices are multiplied by the vendor's library."""
        return self.opt in ("O1", "O2", "O3") or "cublas_gemm=1" in self.opt
