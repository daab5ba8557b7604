"""Precision recipes by name: dtypes of weights, gradients, optimizer states and the copies beside them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from willfit.errors import BadInput
from willfit.quantities import dtype_name
from willfit.training.settings import PrecisionSettings

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
    asked = _named(asked)
    if asked.recipe is None:
        return asked
    recipe = RECIPES.get(asked.recipe)
    if recipe is None:
        raise BadInput(f"there is no precision recipe {asked.recipe!r}", f"known: {', '.join(RECIPES)}")
    return completed(asked, recipe)


def _named(asked: PrecisionSettings) -> PrecisionSettings:
    """Dtypes by the names that are used here, however a framework writes them."""
    names: dict[str, Any] = {
        name: dtype_name(text)
        for name in ("weights", "compute", "trainable", "gradients", "states", "reduce")
        if (text := getattr(asked, name)) is not None
    }
    if asked.master not in (None, "none"):
        names["master"] = dtype_name(str(asked.master))
    return replace(asked, **names)


def completed(asked: PrecisionSettings, otherwise: PrecisionSettings) -> PrecisionSettings:
    """`asked`, with the other's fields where it has none."""
    open_fields = {
        field.name: getattr(otherwise, field.name)
        for field in fields(asked)
        if getattr(asked, field.name) is None
    }
    return replace(asked, **open_fields)
