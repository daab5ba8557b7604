"""FSDP2: `fully_shard` on what accelerate makes units of, or on layers and the rest.

The units are sharded on the meta device, as accelerate does where one rank reads the weights
(`utils/fsdp_utils.py: fsdp2_prepare_model`), so that only shards are ever made on the device.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

from willfit.errors import BadInput
from willfit.tracing.question import Train
from willfit.tracing.worker.distributed.casts import computed, reduced
from willfit.tracing.worker.distributed.groups import Sizes
from willfit.tracing.worker.dtypes import dtype
from willfit.tracing.worker.tracer import Tracer

#: `LayoutSettings.wrap`: accelerate's units, and layers with all the rest in the root unit.
_ACCELERATE, _ROOTED = (None, "block"), "block-root"


def shard(model: Any, asked: Train, sizes: Sizes, mesh: dist.DeviceMesh) -> None:
    """Shard a model on the meta device in its place.

    Raises
    ------
    BadInput
        If the layout says what `fully_shard` does not do.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy

    settings = asked.settings
    layout = settings.layout
    if settings.offload.params:
        raise BadInput("FSDP's offloaded parameters are not traced", "`willfit train` answers by closed form")
    if layout.wrap not in (*_ACCELERATE, _ROOTED):
        raise BadInput(f"FSDP2 units by {layout.wrap!r} are not traced", "block and block-root are")
    compute, reduce = computed(settings.precision), reduced(settings.precision)
    # accelerate's policy also casts what the root returns (`utils/dataclasses.py: set_mixed_precision`).
    policy = MixedPrecisionPolicy(compute, reduce, output_dtype=compute)
    keeps = layout.strategy in ("shard_grad_op", "no_shard") or layout.reshard is False
    names = ("dp_replicate", "fsdp") if sizes.replicas > 1 else ("fsdp",)
    if layout.wrap == _ROOTED:
        _rooted(model, mesh[names], policy, not keeps)
        return
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    plugin = SimpleNamespace(
        set_auto_wrap_policy=lambda model: None,
        auto_wrap_policy=transformer_auto_wrap_policy,
        transformer_cls_names_to_wrap=None,
        reshard_after_forward=not keeps,
        mixed_precision_policy=policy,
        cpu_offload=None,
        cpu_ram_efficient_loading=False,  # only what it does on the host would differ
        ignored_modules=None,
    )
    upcasts = compute is not None and dtype(settings.precision.trainable) is torch.float32
    stand_in = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=plugin),
        torch_device_mesh=mesh,
        parallelism_config=SimpleNamespace(fsdp_dim_names=names),
        mixed_precision="bf16" if upcasts else "no",
        is_main_process=False,
    )
    fsdp2_prepare_model(stand_in, model)


def _rooted(model: Any, mesh: dist.DeviceMesh, policy: object, reshard: bool) -> None:
    """Each layer is a unit, and the rest another."""
    from torch.distributed.fsdp import fully_shard

    layers = set(model._no_split_modules or ())
    for module in [one for one in model.modules() if type(one).__name__ in layers]:
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)


def settle(model: Any) -> None:
    """Do what FSDP does before the first forward pass: shards that do not divide evenly get their padding again."""
    model._get_fsdp_state()._lazy_init()


def follow(tracer: Tracer) -> None:
    """Say of what FSDP makes what it is, once in a process."""
    from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup

    gather, wait, scatter = (
        FSDPParamGroup.unshard,
        FSDPParamGroup.wait_for_unshard,
        FSDPParamGroup.post_backward,
    )

    def unshard(self: Any, async_op: bool = False) -> None:
        with tracer.meant("communication"):
            gather(self, async_op)

    def wait_for_unshard(self: Any) -> None:
        with tracer.meant("communication"):
            wait(self)
        for parameter in self.fsdp_params:
            for whole in parameter.all_gather_outputs:
                tracer.relabel(whole, "communication", parameter._param_fqn or "")

    def post_backward(self: Any, *unused: Any) -> None:
        for parameter in self.fsdp_params:
            whole = getattr(parameter, "_unsharded_param", None)
            if whole is not None and whole.grad is not None:
                tracer.relabel(whole.grad, "gradient", parameter._param_fqn or "")
        with tracer.meant("communication"):
            scatter(self, *unused)
        for parameter in self.fsdp_params:
            for left in (parameter.sharded_param.grad, parameter.unsharded_accumulated_grad):
                if left is not None:
                    tracer.relabel(left, "gradient", self._module_fqn or "")
        if self._partial_reduce_output is not None:
            tracer.relabel(self._partial_reduce_output, "gradient", self._module_fqn or "")

    FSDPParamGroup.unshard = unshard
    FSDPParamGroup.wait_for_unshard = wait_for_unshard
    FSDPParamGroup.post_backward = post_backward
