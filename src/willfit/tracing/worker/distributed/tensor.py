"""Tensor parallelism as transformers does it: parameters as DTensors by a model's own plan, and forwards that change
layouts where it says so (`transformers/distributed/tensor_parallel.py`)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from willfit.errors import BadInput
from willfit.tracing.worker.distributed.groups import Sizes


def divide(model: Any, sizes: Sizes, mesh: dist.DeviceMesh) -> None:
    """Divide a model on the meta device in its place.

    Raises
    ------
    BadInput
        If the model has no plan, or cannot be divided so.
    """
    if hasattr(model, "peft_config"):
        raise BadInput("adapters with tensor parallelism are not traced", "leave tp out")
    from transformers.distributed.configuration_utils import DistributedConfig
    from transformers.distributed.utils import TransformersDeviceMesh

    tied = _untied(model)
    try:
        model.maybe_distribute_model(
            model, DistributedConfig(tp_size=sizes.tp), TransformersDeviceMesh(mesh, mesh)
        )
    except ValueError as error:
        raise BadInput(f"transformers cannot divide this model by tp {sizes.tp}: {error}") from None
    if tied:
        model.tie_weights(recompute_mapping=False)


def _untied(model: Any) -> bool:
    """Give tied parameters values of their own, and say whether there were any.

    A loaded model is divided before its weights are tied (`modeling_utils.py: PreTrainedModel.from_pretrained`).
    """
    tied: dict[str, str] = model.all_tied_weights_keys
    for name in tied:
        module, _, leaf = name.rpartition(".")
        owner = model.get_submodule(module)
        held = getattr(owner, leaf)
        setattr(owner, leaf, torch.nn.Parameter(torch.empty_like(held), requires_grad=held.requires_grad))
    return bool(tied)
