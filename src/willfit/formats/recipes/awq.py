"""AWQ checkpoints: every linear of the decoder layers, 4 bits with zero points.

`modules_to_not_convert` comes on top of the head and the embeddings (Transformers `quantizer_awq.py`).
"""

from __future__ import annotations

from typing import Literal

from willfit.checkpoints.config import Config
from willfit.formats.awq import Awq
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.patterns import Patterns
from willfit.formats.recipes.select import Uniform
from willfit.formats.recipes.settings import bit_width, group_size


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    bits = bit_width(quant, "bits", "w_bit", most=8)
    group = group_size(quant)
    fast = quant.text("version", default="gemm").lower() == "gemv_fast"
    version: Literal["gemm", "gemv_fast"] = "gemv_fast" if fast else "gemm"
    skip = Patterns(quant.strings("modules_to_not_convert"), quant.where)
    stored = Awq(bits, group, version)
    # A matrix that is no whole number of words cannot be packed and stays as it is.
    rule = Uniform(stored, skip, mtp=False, multiple=(32 // bits, max(group, 1)))
    return Recipe(stored.name, Plain(dtype), rule, skip.by_layer)
