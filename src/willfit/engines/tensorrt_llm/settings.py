"""TensorRT-LLM's settings, and what it makes of those that the user leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2
from typing import Literal

from willfit.architectures.model import Architecture
from willfit.engines.sharding import Sharding
from willfit.engines.tensorrt_llm.eras import NEWEST, Era, era_for
from willfit.errors import BadInput

_FRACTION = 0.9

#: Largest batch with a graph, if nothing is said.
_GRAPH_BATCH = 128


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings under TensorRT-LLM's own names (`llmapi/llm_args.py`); None leaves the choice to it.

    Attributes
    ----------
    version
        Version of TensorRT-LLM.
    backend
        `pytorch`, or `tensorrt` for an engine that was built before.
    kv_cache_dtype, tokens_per_block, max_tokens, max_gpu_total_bytes, max_attention_window, host_cache_size
        Fields of `kv_cache_config`; `host_cache_size` is in bytes, of each rank.
    cuda_graph, cuda_graph_batch_sizes, cuda_graph_max_batch_size, cuda_graph_padding
        `cuda_graph_config`: whether there is one, and its fields.
    draft_layers, draft_tokens
        `speculative_config`: layers that drafting adds to the cache (MTP: its modules; EAGLE-3: one), and the tokens
        that are drafted at once.
    """

    version: str = NEWEST
    backend: Literal["pytorch", "tensorrt"] | None = None
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    moe_expert_parallel_size: int | None = None
    enable_attention_dp: bool = False
    max_batch_size: int | None = None
    max_num_tokens: int | None = None
    max_seq_len: int | None = None
    max_input_len: int | None = None
    max_beam_width: int = 1
    free_gpu_memory_fraction: float | None = None
    kv_cache_dtype: str = "auto"
    tokens_per_block: int | None = None
    max_tokens: int | None = None
    max_gpu_total_bytes: int | None = None
    max_attention_window: tuple[int, ...] = ()
    host_cache_size: int = 0
    cuda_graph: bool | None = None
    cuda_graph_batch_sizes: tuple[int, ...] = ()
    cuda_graph_max_batch_size: int | None = None
    cuda_graph_padding: bool = False
    draft_layers: int = 0
    draft_tokens: int = 0

    @property
    def sharding(self) -> Sharding:
        """How the weights are spread."""
        return Sharding(
            self.tensor_parallel_size,
            self.pipeline_parallel_size,
            self.moe_expert_parallel_size or 1,
            attention=1 if self.enable_attention_dp else None,
        )

    @property
    def groups(self) -> int:
        """Groups of ranks with sequences of their own."""
        return self.tensor_parallel_size if self.enable_attention_dp else 1

    @property
    def cache_ranks(self) -> int:
        """Ranks that divide the heads of the cache."""
        return 1 if self.enable_attention_dp else self.tensor_parallel_size


@dataclass(frozen=True, slots=True)
class Resolved:
    """What TensorRT-LLM decides before it loads anything."""

    era: Era
    backend: Literal["pytorch", "tensorrt"]
    max_batch_size: int
    max_num_tokens: int
    max_seq_len: int
    free_gpu_memory_fraction: float
    tokens_per_block: int
    graph_sizes: tuple[int, ...]


def resolve(settings: Settings, architecture: Architecture) -> Resolved:
    """Fill in defaults.

    Raises
    ------
    BadInput
        If neither the settings nor the config say how long a sequence can be.
    """
    era = era_for(settings.version)
    length = settings.max_seq_len or architecture.max_positions
    if not length:
        raise BadInput("the config names no longest sequence", "give --context (TensorRT-LLM: --max_seq_len)")
    backend = settings.backend or era.backend
    batch = settings.max_batch_size or era.max_batch_size
    tokens = settings.max_num_tokens or era.max_num_tokens
    fraction = settings.free_gpu_memory_fraction
    return Resolved(
        era=era,
        backend=backend,
        max_batch_size=batch,
        max_num_tokens=tokens or batch * (settings.max_input_len or era.max_input_len),
        max_seq_len=length,
        free_gpu_memory_fraction=_FRACTION if fraction is None else fraction,
        tokens_per_block=settings.tokens_per_block or era.tokens_per_block,
        graph_sizes=graph_sizes(settings, batch, era) if backend == "pytorch" else (),
    )


def graph_sizes(settings: Settings, batch: int, era: Era) -> tuple[int, ...]:
    """Batch sizes with a CUDA graph (`CudaGraphConfig`), those that a batch can reach."""
    if not (era.cuda_graphs if settings.cuda_graph is None else settings.cuda_graph):
        return ()
    sizes = settings.cuda_graph_batch_sizes
    if not sizes:
        most = settings.cuda_graph_max_batch_size or _GRAPH_BATCH
        if settings.cuda_graph_padding:
            found = {1, 2, 4, *range(8, 129, 8), *range(192, most + 1, 64)}
        else:
            found = {*range(1, 33), 64, 128, *(2**power for power in range(8, ceil(log2(most))))}
        sizes = (*(size for size in found if size < most), most)
    return tuple(sorted(size for size in set(sizes) if size <= batch))
