"""AQLM checkpoints: all linears of the decoder layers but those in `linear_weights_not_to_quantize`."""

from __future__ import annotations

from willfit.checkpoints.config import Config
from willfit.formats.codebook import Aqlm
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.patterns import Patterns
from willfit.formats.recipes.select import Uniform
from willfit.formats.recipes.settings import bit_width


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    stored = Aqlm(
        bit_width(quant, "num_codebooks", default=1),
        bit_width(quant, "nbits_per_codebook", default=16),
        quant.integer("in_group_size", default=8) or 8,
        quant.integer("out_group_size", default=1) or 1,
    )
    skip = Patterns(quant.strings("linear_weights_not_to_quantize"), quant.where)
    return Recipe(stored.name, Plain(dtype), Uniform(stored, skip, mtp=False), skip.by_layer)
