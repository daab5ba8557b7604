"""FBGEMM FP8 checkpoints (Llama 3.1 405B FP8, Llama 4 Maverick FP8): one fp32 scale per output channel.

Transformers `FbgemmFp8Linear`. The fused experts of Llama 4 are included.
"""

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
    stored = Scaled("fbgemm fp8", "fp8_e4m3", "channel")
    return Recipe(stored.name, Plain(dtype), Uniform(stored, skip, mtp=False), skip.by_layer)
