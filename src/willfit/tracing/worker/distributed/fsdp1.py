"""FSDP1: `FullyShardedDataParallel` as accelerate's plugin sets it for the Trainer.

Units are made on the device one by one, as they are where one rank reads the weights: put together as a flat parameter,
of which a shard stays (`_flat_param.py: FlatParamHandle`).
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch
import torch.distributed as dist

from willfit.errors import BadInput
from willfit.tracing.question import Train
from willfit.tracing.worker.distributed.casts import computed, reduced
from willfit.tracing.worker.distributed.groups import Sizes
from willfit.tracing.worker.recipes import casting
from willfit.tracing.worker.recipes import model as models
from willfit.tracing.worker.tracer import Tracer
from willfit.training.settings import LayoutSettings

#: `LayoutSettings.wrap`.
_BLOCKS, _BY_SIZE = (None, "block", "block-root"), "size"
#: `LayoutSettings.strategy`; the second where shards are in replicas.
_STRATEGIES = {
    None: ("FULL_SHARD", "HYBRID_SHARD"),
    "full_shard": ("FULL_SHARD", "HYBRID_SHARD"),
    "hybrid_shard": ("HYBRID_SHARD", "HYBRID_SHARD"),
    "shard_grad_op": ("SHARD_GRAD_OP", "_HYBRID_SHARD_ZERO2"),
    "no_shard": ("NO_SHARD", "NO_SHARD"),
}


def wrapped(model: Any, asked: Train, sizes: Sizes, mesh: dist.DeviceMesh, tracer: Tracer) -> torch.nn.Module:
    """A model on the meta device as FSDP1 has it on the traced one. Call under the fake mode.

    Raises
    ------
    BadInput
        If the layout says what no trace runs.
    """
    from torch.distributed.fsdp import (
        BackwardPrefetch,
        FullyShardedDataParallel,
        MixedPrecision,
        ShardingStrategy,
    )

    settings = asked.settings
    layout = settings.layout
    if settings.offload.params:
        raise BadInput("FSDP's offloaded parameters are not traced", "`willfit train` answers by closed form")
    if layout.strategy not in _STRATEGIES:
        raise BadInput(f"FSDP has no strategy {layout.strategy!r}")
    compute, reduce = computed(settings.precision), reduced(settings.precision)
    hybrid = sizes.replicas > 1 and sizes.shards > 1
    if compute is not None and compute is not torch.float32:
        # accelerate's mixed precision is autocast as well, but with FSDP2.
        casting.under_autocast(model, compute, tracer.device)
    with tracer:
        found = FullyShardedDataParallel(
            model,
            device_mesh=mesh["dp_replicate", "fsdp"] if hybrid else None,
            sharding_strategy=ShardingStrategy[_STRATEGIES[layout.strategy][hybrid]],
            auto_wrap_policy=_policy(model, layout),
            # accelerate's `utils/dataclasses.py: set_mixed_precision`
            mixed_precision=MixedPrecision(compute, reduce, buffer_dtype=compute),
            # The Trainer asks for original parameters, accelerate's plugin for no prefetch.
            use_orig_params=True,
            backward_prefetch=None if layout.prefetch == 0 else BackwardPrefetch.BACKWARD_PRE,
            limit_all_gathers=True,
            param_init_fn=functools.partial(models.place_own, device=tracer.device, made={}),
            device_id=tracer.device,
        )
        _settle(found)
    return found


def _settle(model: Any) -> None:
    """Do what FSDP does before the first forward pass, for which it asks for a card."""
    from torch.distributed.fsdp._runtime_utils import _lazy_init

    before = torch.cuda.is_available
    torch.cuda.is_available = lambda: True
    try:
        _lazy_init(model, model)
    finally:
        torch.cuda.is_available = before


def _policy(model: Any, layout: LayoutSettings) -> Any:
    """What is a unit: layers, and with adapters each trained module that has no others inside."""
    from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy, transformer_auto_wrap_policy

    if layout.wrap == _BY_SIZE:
        return size_based_auto_wrap_policy
    if layout.wrap not in _BLOCKS:
        raise BadInput(f"FSDP1 units by {layout.wrap!r} are not traced", "block and size are")
    if hasattr(model, "peft_config"):
        from peft.utils.other import fsdp_auto_wrap_policy

        return fsdp_auto_wrap_policy(model)
    names = set(model._no_split_modules or ())
    layers = {type(module) for module in model.modules() if type(module).__name__ in names}
    return functools.partial(transformer_auto_wrap_policy, transformer_layer_cls=layers)


def follow(tracer: Tracer) -> None:
    """Say of what FSDP makes what it is, once in a process."""
    from torch.distributed.fsdp import _runtime_utils
    from torch.distributed.fsdp._flat_param import FlatParamHandle

    attributes, gather = FlatParamHandle.init_flat_param_attributes, _runtime_utils._unshard
    scatter = _runtime_utils._reduce_grad

    def init_flat_param_attributes(self: Any) -> None:
        with tracer.meant("communication"):
            attributes(self)
        tracer.relabel(self.flat_param._local_shard, "parameter", _name(self))

    def unshard(state: Any, handle: Any, *streams: Any) -> None:
        with tracer.meant("communication"):
            gather(state, handle, *streams)
        if handle:
            tracer.relabel(handle.flat_param.data, _held(handle), _name(handle))

    def reduce_grad(state: Any, handle: Any) -> None:
        flat = handle.flat_param
        tracer.relabel(flat.grad, "gradient", _name(handle))
        with tracer.meant("communication"):
            scatter(state, handle)
        tracer.relabel(flat._saved_grad_shard, "gradient", _name(handle))

    FlatParamHandle.init_flat_param_attributes = init_flat_param_attributes
    _runtime_utils._unshard = unshard
    _runtime_utils._reduce_grad = reduce_grad


def _held(handle: Any) -> str:
    """What a flat parameter's data is while its unit runs."""
    return "communication" if handle.uses_sharded_strategy else "parameter"


def _name(handle: Any) -> str:
    """The part that the parameters of a unit have in common."""
    names = list(zip(*(name.split(".") for name in handle.flat_param._fqns), strict=False))
    return ".".join(part[0] for part in itertools.takewhile(lambda part: len(set(part)) == 1, names))
