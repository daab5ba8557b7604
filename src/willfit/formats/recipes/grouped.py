"""A method that is not known but says how many bits its weights have: packed integers with fp16 scales.

The layout that nearly all group-wise methods share, give or take the zero points.
"""

from __future__ import annotations

from willfit.checkpoints.config import Config
from willfit.formats.packed import PackedInt
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.patterns import Patterns
from willfit.formats.recipes.select import Uniform
from willfit.formats.recipes.settings import bit_width, group_size


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    method = quant.text("quant_method", default="unknown")
    stored = PackedInt(method, bit_width(quant, "bits", "nbits", "w_bit"), group_size(quant), "fp16")
    skip = Patterns(quant.strings("modules_to_not_convert", "ignored_layers", "ignore"), quant.where)
    note = f"quantization method {method!r} is not known: sized as packed integers with fp16 scales"
    return Recipe(stored.name, Plain(dtype), Uniform(stored, skip, mtp=False), skip.by_layer, notes=(note,))
