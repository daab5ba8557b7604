"""Fused kernels that a run asks for, put into a model."""

from __future__ import annotations

from typing import Any

import torch

from willfit.errors import BadInput
from willfit.tracing.worker.stand_ins import unsloth
from willfit.tracing.worker.stand_ins.liger import families
from willfit.tracing.worker.stand_ins.unsloth import losses
from willfit.training.settings import TrainingSettings

#: Kernels of Liger by our names, and the word for all of them.
LIGER = ("rms_norm", "rope", "swiglu")
#: Losses that are traced: transformers' own, and Liger's two.
LOSSES = ("hf", "fused", "liger")
CHUNKS = "Unsloth's loss goes by chunks that grow with what is free; those of Liger's loss are traced in their place"
#: Words for fused adapters.
ADAPTERS = ("lora", "foak_lora")


def apply(model: Any, settings: TrainingSettings) -> list[str]:
    """Replace modules in place.

    Returns
    -------
    list of str
        What a reader must know of it.

    Raises
    ------
    BadInput
        For kernels and losses that are not traced.
    """
    asked = set(settings.kernels)
    for package, kernels in (("liger", LIGER), ("unsloth", (*LIGER, "lora")), ("foak", unsloth.FOAK)):
        if package in asked:
            asked = asked - {package} | set(kernels)
    loss = settings.loss.kind or ("liger" if "liger" in settings.kernels else "hf")
    if loss not in LOSSES:
        raise BadInput(f"the loss {loss!r} is not traced", f"traced: {', '.join(LOSSES)}")
    if "cross_entropy" in asked and loss == "hf":
        loss = "fused"
    unknown = sorted(asked - {*LIGER, *ADAPTERS, "cross_entropy"})
    if unknown:
        raise BadInput(
            f"kernels for {', '.join(unknown)} are not traced",
            f"traced: {', '.join(LIGER)}, liger, unsloth, foak",
        )
    if asked.isdisjoint(ADAPTERS):
        if asked or loss != "hf":
            families.apply(model, asked, loss)
        return []
    unsloth.apply(model, asked, settings)
    own = settings.framework == "unsloth"
    if loss == "fused" and own:
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        inner.loss_function = losses.causal_loss
    elif loss == "fused":
        torch.nn.functional.cross_entropy = losses.cross_entropy
    elif loss == "liger":
        families.apply(model, (), loss)
    return [CHUNKS] if loss == "liger" and own else []
