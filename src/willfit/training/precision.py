"""Precision recipes by name: dtypes of weights, gradients, optimizer states and the copies beside them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from willfit.errors import BadInput
from willfit.quantities import dtype_name
from willfit.training.settings import PrecisionSettings, TrainingSettings

#: Bytes for a parameter that is trained, as `weights + gradients + states (+ copies)`, without sharding:
#: fp32 4+4+8; amp 4+4+8 and 2 of cast copies while layers run; pure 2+2+4; deepspeed 2+2+12; megatron-bf16 2+4+12;
#: megatron-fp16 2+2+16 (fp16 weights and gradients, fp32 master, gradient and moments); fsdp-mixed 4+4+8 of shards.
RECIPES: dict[str, PrecisionSettings] = {
    "fp32": PrecisionSettings(
        weights="fp32", compute="fp32", gradients="fp32", states="fp32", autocast=False
    ),
    "amp-bf16": PrecisionSettings(
        weights="fp32", compute="bf16", gradients="fp32", states="fp32", autocast=True
    ),
    "amp-fp16": PrecisionSettings(
        weights="fp32", compute="fp16", gradients="fp32", states="fp32", autocast=True
    ),
    "pure-bf16": PrecisionSettings(
        weights="bf16", compute="bf16", gradients="bf16", states="bf16", autocast=False
    ),
    "pure-fp16": PrecisionSettings(
        weights="fp16", compute="fp16", gradients="fp16", states="fp16", autocast=False
    ),
    "deepspeed-bf16": PrecisionSettings(
        weights="bf16", compute="bf16", gradients="bf16", states="fp32", master="fp32", autocast=False
    ),
    "deepspeed-fp16": PrecisionSettings(
        weights="fp16", compute="fp16", gradients="fp16", states="fp32", master="fp32", autocast=False
    ),
    "megatron-bf16": PrecisionSettings(
        weights="bf16", compute="bf16", gradients="fp32", states="fp32", master="fp32", autocast=False
    ),
    "megatron-fp16": PrecisionSettings(
        weights="fp16",
        compute="fp16",
        gradients="fp16",
        states="fp32",
        master="fp32",
        reduce="fp32",
        autocast=False,
    ),
    "fsdp-mixed": PrecisionSettings(
        weights="fp32", compute="bf16", gradients="fp32", states="fp32", reduce="fp32", autocast=False
    ),
}


def filled(asked: PrecisionSettings) -> PrecisionSettings:
    """What was asked, with a named recipe's dtypes where it leaves them open.

    Raises
    ------
    BadInput
        If there is no such recipe.
    """
    if asked.recipe is None:
        return asked
    recipe = RECIPES.get(asked.recipe)
    if recipe is None:
        raise BadInput(f"there is no precision recipe {asked.recipe!r}", f"known: {', '.join(RECIPES)}")
    return completed(asked, recipe)


def completed(asked: PrecisionSettings, otherwise: PrecisionSettings) -> PrecisionSettings:
    """`asked`, with the other's fields where it has none."""
    open_fields = {
        field.name: getattr(otherwise, field.name)
        for field in fields(asked)
        if getattr(asked, field.name) is None
    }
    return replace(asked, **open_fields)


def spelled(settings: TrainingSettings, checkpoint: str) -> TrainingSettings:
    """The settings with dtypes by their names here, however they were written.

    Parameters
    ----------
    settings
        What was asked.
    checkpoint
        The checkpoint's dtype, which `auto` is.

    Raises
    ------
    BadInput
        If no dtype is called so.
    """

    def named(text: str | None) -> str | None:
        if text is None or text == "none":
            return text
        return checkpoint if text == "auto" else dtype_name(text)

    asked = settings.precision
    dtypes = ("weights", "compute", "trainable", "gradients", "states", "master", "reduce")
    names: dict[str, Any] = {name: named(getattr(asked, name)) for name in dtypes}
    precision = replace(asked, **names)
    adapter, quantization = settings.adapter, settings.quantization
    if adapter is not None:
        adapter = replace(adapter, dtype=named(adapter.dtype))
    if quantization is not None:
        quantization = replace(quantization, storage=named(quantization.storage))
    return replace(settings, precision=precision, adapter=adapter, quantization=quantization)
