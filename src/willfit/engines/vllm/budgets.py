"""vLLM's budget for a planner: what it takes of any device of a kind."""

from __future__ import annotations

from willfit.calibration import constant
from willfit.engines.base import Subject
from willfit.engines.budget import Budget, summed
from willfit.engines.vllm.features.tasks import settled
from willfit.engines.vllm.settings import Settings
from willfit.engines.vllm.shared import Shared
from willfit.engines.vllm.sizing import POOL_SPREADS
from willfit.engines.vllm.startup import profiled
from willfit.hardware.device import Device
from willfit.quantities import ceil_div


def budget(
    subject: Subject, kind: Device, settings: Settings, users: int, shared: Shared | None = None
) -> Budget:
    """What vLLM takes of devices of a kind.

    Parameters
    ----------
    kind
        See `kinds.kind_of`.
    settings
        With a `max_model_len`, and without a cache of a size that is asked for.
    users
        Sequences of `max_model_len` tokens that shall run at once.
    shared
        What is known of earlier budgets.

    Raises
    ------
    BadInput
        If the length of a sequence is not known.
    """
    settings = settled(subject, settings)
    profile = profiled(subject, kind, settings, shared)
    spreads = (constant(name) for name in POOL_SPREADS)
    return Budget(
        share=profile.resolved.gpu_memory_utilization,
        inside=summed(profile.inside),
        outside=summed(profile.outside),
        spreads=tuple((1 - spread.low, spread.high - 1) for spread in spreads),
        block_bytes=profile.plan.bytes_per_block,
        needed_bytes=profile.needed_bytes(ceil_div(users, settings.data_parallel)),
        refusal=profile.refusal,
    )
