"""Fused kernels that a run asks for, put into a model."""

from __future__ import annotations

from typing import Any

from willfit.errors import BadInput
from willfit.tracing.worker.stand_ins.liger import families
from willfit.training.settings import TrainingSettings

#: Kernels of Liger by our names, and the word for all of them.
LIGER = ("rms_norm", "rope", "swiglu")
#: Losses that are traced: transformers' own, and Liger's two.
LOSSES = ("hf", "fused", "liger")


def apply(model: Any, settings: TrainingSettings) -> None:
    """Replace modules in place.

    Raises
    ------
    BadInput
        For kernels and losses that are not traced.
    """
    asked = set(settings.kernels)
    if settings.framework == "unsloth" or asked & {"unsloth", "lora"}:
        raise BadInput(
            "Unsloth's fused adapters are not traced",
            "`willfit train --framework unsloth` answers without a trace",
        )
    if "liger" in asked:
        asked = asked - {"liger"} | set(LIGER)
    loss = settings.loss.kind or ("liger" if "liger" in settings.kernels else "hf")
    if loss not in LOSSES:
        raise BadInput(f"the loss {loss!r} is not traced", f"traced: {', '.join(LOSSES)}")
    if "cross_entropy" in asked and loss == "hf":
        loss = "fused"
    unknown = sorted(asked - {*LIGER, "cross_entropy"})
    if unknown:
        raise BadInput(
            f"kernels for {', '.join(unknown)} are not traced", f"traced: {', '.join(LIGER)}, liger"
        )
    if asked or loss != "hf":
        families.apply(model, asked, loss)
