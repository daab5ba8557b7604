"""EETQ checkpoints: int8 linears with one fp16 scale per output channel (Transformers `EetqLinear`)."""

from __future__ import annotations

from willfit.checkpoints.config import Config
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.patterns import Patterns
from willfit.formats.recipes.select import Uniform
from willfit.formats.scaled import Scaled


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    skip = Patterns(quant.strings("modules_to_not_convert"), quant.where)
    stored = Scaled("eetq int8", "int8", "channel", scale_dtype="fp16", scale_suffix="weight_scales")
    rule = Uniform(stored, skip, towers=True, mtp=False, fused=False)
    return Recipe(stored.name, Plain(dtype), rule, skip.by_layer)
