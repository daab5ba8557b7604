"""LightLLM's settings under their own names, and what it makes of those that the user leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.architectures.model import Architecture
from willfit.engines.lightllm.eras import NEWEST, Era, era_for
from willfit.engines.sharding import Sharding
from willfit.quantities import GIB, ceil_div

#: Length of a request where the config names no limit (`utils/config_utils.py: auto_set_max_req_total_len`).
_FALLBACK_LENGTH = 16384

#: `--performance_mode personal` (`server/api_start.py`).
_PERSONAL = {"running_max_req_size": 6, "batch_max_tokens": 2048, "graph_max_batch_size": 6}
_PERSONAL_EMBEDDINGS = int(0.8 * GIB)


@dataclass(frozen=True, slots=True)
class KvType:
    """How a slot's elements are stored.

    Attributes
    ----------
    bits
        Of an element.
    group
        Elements that share a scale in the model's dtype; 0 without scales, None for one of each head.
    """

    bits: int
    group: int | None = 0


#: `--llm_kv_type` (1.2: `common/kv_cache_mem_manager/`).
KV_TYPES: dict[str, KvType] = {
    "int8kv": KvType(8, 8),
    "int4kv": KvType(4, 8),
    "fp8kv_sph": KvType(8),
    "fp8kv_spt": KvType(8),
    "fp8kv_dsa": KvType(8),
}

#: Words of `--mode`, before 1.2, and what they do to the cache (1.1: `common/mem_utils.py`).
MODES: dict[str, KvType] = {
    "ppl_int8kv": KvType(8, 8),
    "ppl_int8kv_flashdecoding": KvType(8, 8),
    "ppl_int4kv_flashdecoding": KvType(4, 8),
    "triton_int8kv": KvType(8, None),
    "triton_fp8kv": KvType(8),
    "offline_calibration_fp8kv": KvType(8),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of `lightllm.server.api_server` under their own names; None leaves the choice to LightLLM.

    Attributes
    ----------
    tp, dp
        Cards, and groups of them that serve requests of their own; only experts can be spread over all
        (`enable_ep_moe`).
    quant_type
        What the weights are turned into while they are loaded; the subject's format is what comes of it.
    llm_kv_type
        `None`, a key of `KV_TYPES`, or of `MODES` for versions before 1.2.
    run_mode
        `prefill` and `decode` hold buffers for what they send to each other.
    penalty_counter_mode
        Where the counters of used tokens are: `gpu_counter`, `pin_mem_counter` or `cpu_counter`.
    mtp_mode, mtp_step
        `*_with_att` and `deepseekv3` give the draft model layers of the cache.
    cpu_cache_bytes, embed_cache_bytes
        `--cpu_cache_storage_size` with `--enable_cpu_cache`, and `--embed_cache_storage_size`; in host RAM.
    personal
        `--performance_mode personal`.
    """

    version: str = NEWEST
    tp: int = 1
    dp: int = 1
    enable_ep_moe: bool = False
    data_type: str | None = None
    quant_type: str = "none"
    mem_fraction: float | None = None
    max_total_token_num: int | None = None
    max_req_total_len: int | None = None
    batch_max_tokens: int | None = None
    chunked_prefill_size: int | None = None
    running_max_req_size: int | None = None
    llm_kv_type: str = "None"
    disable_cudagraph: bool = False
    graph_max_batch_size: int | None = None
    graph_split_batch_size: int = 32
    graph_grow_step_size: int = 16
    enable_multimodal: bool = False
    disable_vision: bool = False
    disable_chunked_prefill: bool = False
    enable_chunked_prefill: bool = False
    linear_att_ssm_data_type: str = "float32"
    linear_att_cache_size: int | None = None
    penalty_counter_mode: str = "gpu_counter"
    run_mode: Literal["normal", "prefill", "decode"] = "normal"
    pd_kv_page_num: int = 16
    pd_kv_page_size: int = 1024
    mtp_mode: str | None = None
    mtp_step: int = 0
    cpu_cache_bytes: int = 0
    embed_cache_bytes: int = 4 * GIB
    personal: bool = False

    @property
    def group_ranks(self) -> int:
        """Cards of a data-parallel group, which divide heads and matrices (`utils/dist_utils.py`)."""
        return max(1, self.tp // self.dp)

    @property
    def sharding(self) -> Sharding:
        """How the weights are spread."""
        return Sharding(self.group_ranks, experts=self.tp if self.enable_ep_moe else 1)

    @property
    def kv_type(self) -> KvType | None:
        """How slots are stored; None for the model's dtype."""
        return KV_TYPES.get(self.llm_kv_type) or MODES.get(self.llm_kv_type)

    @property
    def draft_models(self) -> int:
        """Draft models that are loaded (`mode_backend/base_backend.py: init_mtp_draft_model`)."""
        if not self.mtp_mode:
            return 0
        return 1 if self.mtp_mode.startswith("eagle") else self.mtp_step

    @property
    def draft_layers(self) -> int:
        """Layers that draft models have in the cache (`utils/envs_utils.py: get_added_mtp_kv_layer_num`)."""
        return 0 if (self.mtp_mode or "").endswith("no_att") else self.draft_models


@dataclass(frozen=True, slots=True)
class Resolved:
    """What LightLLM decides before it loads anything."""

    era: Era
    mem_fraction: float
    length: int
    batch_max_tokens: int
    requests: int
    graph_sizes: tuple[int, ...]
    embed_cache_bytes: int


def resolve(settings: Settings, architecture: Architecture) -> Resolved:
    """Fill in defaults (`server/api_start.py`)."""
    era = era_for(settings.version)
    personal = _PERSONAL if settings.personal else {}
    length = (
        settings.max_req_total_len or era.max_req_total_len or architecture.max_positions or _FALLBACK_LENGTH
    )
    requests = settings.running_max_req_size or era.running_max_req_size
    largest = (
        personal.get("graph_max_batch_size") or settings.graph_max_batch_size or era.graph_max_batch_size
    )
    return Resolved(
        era=era,
        mem_fraction=era.mem_fraction if settings.mem_fraction is None else settings.mem_fraction,
        length=length,
        batch_max_tokens=personal.get("batch_max_tokens", _batch_tokens(settings, era, length)),
        requests=personal.get("running_max_req_size", requests),
        graph_sizes=() if settings.disable_cudagraph else graph_sizes(settings, largest, era),
        embed_cache_bytes=_PERSONAL_EMBEDDINGS if settings.personal else settings.embed_cache_bytes,
    )


def _batch_tokens(settings: Settings, era: Era, length: int) -> int:
    """Tokens of the prompts that are run at once."""
    if settings.batch_max_tokens:
        return settings.batch_max_tokens
    chunked = not settings.disable_chunked_prefill if era.chunked else settings.enable_chunked_prefill
    if not chunked:
        return length
    if era.tables_before:
        return era.batch_max_tokens // settings.dp
    chunk = settings.chunked_prefill_size
    spare = 256 if era.chunked else 0
    return min(length, 2 * chunk + spare if chunk else era.batch_max_tokens)


def graph_sizes(settings: Settings, largest: int, era: Era | None = None) -> tuple[int, ...]:
    """Batch sizes that CUDA graphs are captured for (`common/basemodel/cuda_graph.py`).

    A request counts once for itself and once for each token that is drafted.
    """
    each = settings.mtp_step + 1
    if not (era or era_for(settings.version)).split_graphs:
        return tuple(range(1, largest + 1))
    split, step = settings.graph_split_batch_size, settings.graph_grow_step_size
    sizes = {*range(1, split + 1), *range(split + step, largest, step)}
    return tuple(each * size for size in (*sorted(size for size in sizes if size < largest), largest))


def prefix_states(settings: Settings, requests: int) -> int:
    """States that are kept for prefixes, in host RAM (1.2: `server/api_start.py`)."""
    if settings.linear_att_cache_size is not None:
        return settings.linear_att_cache_size
    return max(1, ceil_div(requests, settings.dp)) * 2
