"""SGLang's settings, under its own names."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.sglang.eras import NEWEST


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings under SGLang's own names; None leaves the choice to SGLang.

    Attributes
    ----------
    version
        Version of SGLang.
    attn_dp_size
        Replicas of the attention inside the tensor-parallel ranks (`--dp-size N --enable-dp-attention`).
    dp_size
        Replicas of the whole model, each on devices of its own.
    ep_size
        Degree of expert parallelism inside the tensor-parallel ranks.
    mtp
        The checkpoint's own multi-token-prediction module is loaded as the draft.
    speculative_draft_model_path
        A draft with weights of its own.
    """

    version: str = NEWEST
    tp_size: int = 1
    pp_size: int = 1
    dp_size: int = 1
    attn_dp_size: int = 1
    ep_size: int = 1
    ep_num_redundant_experts: int = 0
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    context_length: int | None = None
    mem_fraction_static: float | None = None
    max_total_tokens: int | None = None
    max_running_requests: int | None = None
    chunked_prefill_size: int | None = None
    max_prefill_tokens: int = 16384
    page_size: int | None = None
    swa_full_tokens_ratio: float | None = None
    disable_hybrid_swa_memory: bool = False
    mamba_full_memory_ratio: float = 0.9
    max_mamba_cache_size: int | None = None
    mamba_ssm_dtype: str | None = None
    mamba_radix_cache_strategy: str = "auto"
    disable_radix_cache: bool = False
    disable_overlap_schedule: bool = False
    disable_cuda_graph: bool = False
    disable_prefill_cuda_graph: bool = False
    cuda_graph_max_bs: int | None = None
    speculative_algorithm: str | None = None
    speculative_num_draft_tokens: int = 0
    mtp: bool = False
    attention_backend: str | None = None
    decode_attention_backend: str | None = None
    speculative_draft_model_path: str | None = None
    enable_lora: bool = False
    max_loras_per_batch: int = 8
    max_lora_rank: int | None = None
    lora_target_modules: tuple[str, ...] = ()
    moe_a2a_backend: str = "none"
    disaggregation_mode: str = "null"
    cpu_offload_gb: float = 0.0
    enable_hierarchical_cache: bool = False
    hicache_ratio: float = 2.0
    hicache_size: float = 0.0
    language_model_only: bool = False

    @property
    def ranks(self) -> int:
        """Devices that one replica takes."""
        return self.tp_size * self.pp_size

    @property
    def attention_ranks(self) -> int:
        """Ranks over which attention heads are divided."""
        return max(1, self.tp_size // self.attn_dp_size)
