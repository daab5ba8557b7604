"""DDP as accelerate wraps a model for the Trainer: torch's own Python code around a reducer in Python."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from willfit.tracing.question import Train
from willfit.tracing.worker.distributed.reducer import Logger, Reducer
from willfit.tracing.worker.tracer import Tracer

#: Bytes of `bucket_cap_mb`'s unit.
_MIB = 1 << 20


def install(tracer: Tracer) -> None:
    """Let `DistributedDataParallel` work without torch's C++ reducer, which reads what tensors hold."""
    from torch.nn.parallel import distributed

    def reducer(parameters: Any, buckets: Any, *rest: Any) -> Reducer:
        cap, finds_unused, views, first = rest[3], rest[4], rest[5], rest[7]
        return Reducer(tracer, parameters, buckets, finds_unused, views, [first, cap])

    dist.Reducer, dist.Logger = reducer, Logger
    # It reads shapes that other ranks sent.
    distributed._verify_param_shape_across_processes = lambda *_: None


def wrapped(model: Any, asked: Train, tracer: Tracer) -> torch.nn.Module:
    """A model on the traced device under DDP. Call under the fake mode."""
    from torch.nn.parallel import distributed

    install(tracer)
    layout = asked.settings.layout
    cap = layout.bucket_bytes
    with tracer:
        return distributed.DistributedDataParallel(
            model,
            device_ids=[0] if tracer.device.type == "cuda" else None,
            bucket_cap_mb=None if cap is None else cap / _MIB,
            find_unused_parameters=finds_unused(model),
            gradient_as_bucket_view=bool(layout.bucket_view),
        )


def finds_unused(model: Any) -> bool:
    """Whether the Trainer asks for a search (`trainer.py: _build_accelerator_args`, 5.23): only checkpoints of its own
    models keep it from that. Outputs are then copied (`_DDPSink`)."""
    from transformers import PreTrainedModel

    return not (isinstance(model, PreTrainedModel) and model.is_activation_checkpointing)
