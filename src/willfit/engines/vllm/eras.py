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
        that leave no such temporaries.
    context_inside
        CUDA context and what other processes hold count against the budget.
    graphs_inside
        An estimate of the CUDA graphs' memory is subtracted from the budget before the cache is sized.
    capacity
        What "GPU KV cache size" reports: `blocks` (blocks x block size), `per_group` (that divided by the
        number of cache groups), `concurrency` (concurrency x max_model_len).
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
    padded_windows
        DeepSeek-V4's windows have pages as large as those of its entries.
    captured
        Sizes that graphs are captured for beside the grid: a `batch` of `max_num_batched_tokens` if that is no larger
        than the grid; also those of speculative `decode` batches; also `max_num_seqs` (`sequences`).
    sparse_capture
        CUDA graphs are captured every 16 sizes above 256 instead of every 8.
    """

    since: Version
    generation: Literal["v0", "v1"] = "v0"
    utilization: float = 0.90
    activation: Literal["prefill", "sampler", "fused"] = "prefill"
    context_inside: bool = False
    graphs_inside: bool = False
    capacity: Literal["blocks", "per_group", "concurrency"] = "blocks"
    group_slack: float = 1.0
    in_flight: bool = False
    state_caching: bool = False
    checkpoint_blocks: bool = False
    null_block: bool = False
    sparse_capture: bool = False
    captured: Literal["grid", "batch", "decode", "sequences"] = "grid"
    padded_windows: bool = True


def _table() -> tuple[Era, ...]:
    eras = [Era((0, 0), context_inside=True)]

    def changed(since: Version, **fields: object) -> None:
        eras.append(replace(eras[-1], since=since, **fields))  # type: ignore[arg-type]

    changed((0, 6, 5), context_inside=False)
    changed((0, 8), generation="v1", activation="sampler", context_inside=True)
    changed((0, 9), context_inside=False, capacity="per_group")
    changed((0, 14), group_slack=1.25, sparse_capture=True)
    changed((0, 16), activation="fused")
    changed((0, 19), group_slack=1.5)
    changed((0, 20), utilization=0.92, graphs_inside=True)
    changed((0, 20, 1), capacity="concurrency")
    changed((0, 22), captured="batch")
    changed((0, 26), in_flight=True)
    changed(
        (0, 29),
        state_caching=True,
        checkpoint_blocks=True,
        null_block=True,
        padded_windows=False,
        captured="decode",
    )
    changed((0, 33), captured="sequences")
    return tuple(eras)


ERAS = _table()

NEWEST = "0.33.0"


def era_for(version: str, generation: str | None = None) -> Era:
    """The era of a version; an explicit engine generation overrides the version's default."""
    era = era_of(version, ERAS)
    if generation == "v0" and era.generation == "v1":
        return replace(era, generation="v0", activation="prefill", context_inside=False, capacity="blocks")
    if generation == "v1" and era.generation == "v0":
        return replace(era, generation="v1", activation="sampler")
    return era
