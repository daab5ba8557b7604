"""vLLM's budget for a planner: what it takes of any device of a kind."""

from __future__ import annotations

from willfit.calibration import constant
from willfit.engines.base import Subject
from willfit.engines.budget import Budget, Runs, summed
from willfit.engines.vllm.host import host_terms
from willfit.engines.vllm.settings import Settings
from willfit.engines.vllm.shared import Shared
from willfit.engines.vllm.sizing import POOL_SPREADS
from willfit.engines.vllm.startup import profiled
from willfit.hardware.device import Device


def budget(subject: Subject, kind: Device, settings: Settings, shared: Shared | None = None) -> Budget:
    """What vLLM takes of devices of a kind.

    Parameters
    ----------
    kind
        See `kinds.kind_of`.
    settings
        Settled (`features.tasks.settled`), with a `max_model_len`, and without a cache of a size that is asked for.
    shared
        What is known of earlier budgets.

    Raises
    ------
    BadInput
        If the length of a sequence is not known.
    """
    profile = profiled(subject, kind, settings, shared)
    resolved, plan = profile.resolved, profile.plan
    in_ram = host_terms(subject, settings, resolved, profile.dtype, profile.moved, plan.bytes_per_block, 0)
    spreads = (constant(name) for name in POOL_SPREADS)
    return Budget(
        share=resolved.gpu_memory_utilization,
        inside=summed(profile.inside),
        outside=summed(profile.outside),
        spreads=tuple((1 - spread.low, spread.high - 1) for spread in spreads),
        block_bytes=plan.bytes_per_block,
        sequence_bytes=plan.blocks_per_request(resolved.max_model_len) * plan.bytes_per_block,
        least_bytes=plan.planned_blocks(resolved.max_model_len) * plan.bytes_per_block,
        kept_bytes=plan.bytes_per_block if resolved.era.null_block else 0,
        most_sequences=resolved.max_num_seqs,
        runs=Runs(
            profile.dtype, profile.kv_dtype, resolved.max_num_batched_tokens, bool(resolved.capture_sizes)
        ),
        refusal=profile.refusal,
        host_bytes=sum(term.bytes for term in in_ram),
    )
