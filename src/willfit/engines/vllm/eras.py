"""What changed in vLLM, and when.

Read in the released wheels: `worker/gpu_worker.py` and `v1/worker/gpu_worker.py` (budget),
`engine/arg_utils.py` and `config/cache.py` (defaults), `v1/core/kv_cache_utils.py` and
`v1/core/kv_cache_planning.py` (groups and reported capacity).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from willfit.engines.versions import Version, era_of


@dataclass(frozen=True, slots=True)
class Era:
    """How vLLM behaves from a version on.

    Attributes
    ----------
    since
        First version that behaves so.
    generation
        `v0` or `v1` engine by default.
    utilization
        Default of `gpu_memory_utilization`.
    activation
        What the profile run's peak is made of: `prefill`: a prefill of `max_num_batched_tokens`, logits of
        `max_num_seqs` rows; `sampler`: the same, with a sampler that sorts whole vocabularies; `fused`: kernels
        that leave no sorted copies.
    flashinfer
        Whether FlashInfer samples: `never`, `if_installed` (vLLM's images bring it, its wheels did not), or
        `by_default`.
    rehearses_sampler
        The V2 model runner also profiles a pass with all sampling parameters set.
    context_inside
        CUDA context and what other processes hold count against the budget.
    nccl_inside
        The budget's first reading is older than the process group, so NCCL's buffers count against it.
    whole_account
        All that was taken from the card since the first reading counts, buffers that live outside the model too.
    graphs_inside
        An estimate of the CUDA graphs' memory is subtracted from the budget before the cache is sized.
    v2_estimates_graphs
        The V2 model runner, too, estimates its graphs; before, it takes them for nothing.
    capacity
        What "GPU KV cache size" reports: `blocks` (blocks x block size), `per_group` (that divided by the
        number of cache groups), `concurrency` (concurrency x max_model_len).
    window_groups, chunked_groups
        Layers that attend within a window or within chunks have cache groups of their own; else they keep whole
        sequences.
    scratch_kept
        Scratch space of experts and indexers is one buffer that stays, instead of tensors that come and go.
    expert_chunk
        Tokens that experts take at once; 0 for all.
    rehearses_latents
        The profile run allocates what up-projecting cached latents of long prompts will take.
    index_rows
        Prompts of the longest length whose index keys the sparse indexer gathers at once.
    rehearses_index
        The profile run allocates the indexer's largest block of logits.
    group_slack
        Cache groups take the largest layer count of a kind if it is below the smallest times this, else the
        smallest.
    in_flight
        Window layers hold all tokens in flight instead of one batch.
    state_caching
        Prefix caching is on by default for models with state layers.
    checkpoint_blocks
        Mamba-2 and gated-delta layers keep one more state block for prefix caching.
    null_block
        The check whether one sequence fits leaves out the block that is never handed out.
    plans_source_by_batch
        Cross-attention is planned for as many source positions as a batch has tokens, not for the encoder's.
    packed_pages
        What a block of DeepSeek-V4's cache has room for: as many pages of each size as the longest list of one size
        (`tuples`), as many of each as any group has of it (`sizes`), or the widest group (`groups`).
    captured
        Sizes that graphs are captured for beside the grid: a `batch` of `max_num_batched_tokens` if that is no larger
        than the grid; also those of speculative `decode` batches; also `max_num_seqs` (`sequences`).
    sparse_capture
        CUDA graphs are captured every 16 sizes above 256 instead of every 8.
    plain_maxima
        Block maxima of bitsandbytes weights that were quantized again are held in fp32
        (`dequantize_dq` of `model_loader/bitsandbytes_loader.py`).
    interleaved_table
        Rotary tables of interleaved multi-axis positions are so many times as long as the context
        (`mrope_positions_factor` of `models/qwen3_vl.py`; without video pruning).
    """

    since: Version
    generation: Literal["v0", "v1"] = "v0"
    utilization: float = 0.90
    activation: Literal["prefill", "sampler", "fused"] = "prefill"
    flashinfer: Literal["never", "if_installed", "by_default"] = "never"
    rehearses_sampler: bool = False
    context_inside: bool = False
    nccl_inside: bool = False
    whole_account: bool = False
    graphs_inside: bool = False
    v2_estimates_graphs: bool = False
    capacity: Literal["blocks", "per_group", "concurrency"] = "blocks"
    window_groups: bool = False
    chunked_groups: bool = False
    scratch_kept: bool = False
    expert_chunk: int = 32768
    rehearses_latents: bool = False
    index_rows: int = 2
    rehearses_index: bool = False
    group_slack: float = 1.0
    in_flight: bool = False
    state_caching: bool = False
    checkpoint_blocks: bool = False
    null_block: bool = False
    plans_source_by_batch: bool = False
    sparse_capture: bool = False
    plain_maxima: bool = False
    interleaved_table: int = 4
    packed_pages: Literal["tuples", "sizes", "groups"] = "tuples"
    captured: Literal["grid", "batch", "decode", "sequences"] = "grid"


def _table() -> tuple[Era, ...]:
    eras = [Era((0, 0), context_inside=True)]

    def changed(since: Version, **fields: object) -> None:
        eras.append(replace(eras[-1], since=since, **fields))  # type: ignore[arg-type]

    changed((0, 6, 5), context_inside=False, nccl_inside=True)
    changed((0, 8), generation="v1", activation="sampler", context_inside=True)
    changed((0, 9), flashinfer="if_installed")
    changed((0, 9, 1), context_inside=False, capacity="per_group", window_groups=True)
    changed((0, 9, 2), plain_maxima=True)
    changed((0, 10), chunked_groups=True)
    changed((0, 10, 1), chunked_groups=False)
    changed((0, 11), nccl_inside=False, rehearses_latents=True)
    changed((0, 11, 1), flashinfer="never")
    changed((0, 13), index_rows=40, plans_source_by_batch=True)
    changed((0, 14), group_slack=1.25, sparse_capture=True, chunked_groups=True, scratch_kept=True)
    changed((0, 15), expert_chunk=16384)
    changed((0, 17), activation="fused")
    changed((0, 18), expert_chunk=0)
    changed((0, 19), group_slack=1.5, rehearses_index=True)
    changed((0, 20), utilization=0.92, graphs_inside=True)
    changed((0, 20, 1), capacity="concurrency")
    changed((0, 21), flashinfer="by_default")
    changed((0, 22), captured="batch")
    changed((0, 24), packed_pages="sizes")
    changed((0, 26), in_flight=True)
    changed(
        (0, 29),
        v2_estimates_graphs=True,
        whole_account=True,
        state_caching=True,
        checkpoint_blocks=True,
        null_block=True,
        packed_pages="groups",
        captured="decode",
    )
    changed((0, 32), interleaved_table=1)
    changed((0, 33), rehearses_sampler=True, captured="sequences")
    return tuple(eras)


ERAS = _table()

NEWEST = "0.33.0"


#: How the V0 engine behaves in versions that have both.
V0: dict[str, object] = {
    "activation": "prefill",
    "flashinfer": "never",
    "context_inside": False,
    "nccl_inside": True,
    "capacity": "blocks",
    "window_groups": False,
    "chunked_groups": False,
}


def era_for(version: str, generation: str | None = None) -> Era:
    """The era of a version; an explicit engine generation overrides the version's default."""
    era = era_of(version, ERAS)
    if generation == "v0" and era.generation == "v1":
        return replace(era, generation="v0", **V0)  # type: ignore[arg-type]
    if generation == "v1" and era.generation == "v0":
        return replace(era, generation="v1", activation="sampler", context_inside=True, nccl_inside=False)
    return era
