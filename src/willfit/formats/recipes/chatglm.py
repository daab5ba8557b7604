"""ChatGLM's own quantization: linears of the layers in 8 or 4 bits with one scale a row, the rest in 16 bits.

`quantization.py` as published with THUDM/chatglm2-6b (`QuantizedLinear`, `quantize`): token table and output layer
stay. Published files say so in `quantization_bit` (chatglm2-6b-int4).
"""

from __future__ import annotations

from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.formats.packed import PackedInt
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.select import Uniform
from willfit.formats.recipes.settings import bit_width


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    bits = bit_width(quant, "quantization_bit", default=8, most=8)
    if bits not in (4, 8):
        raise BadInput(f"{quant.where}: 'quantization_bit' is {bits}, expected 4 or 8")
    stored = PackedInt("chatglm", bits, -1, dtype)
    return Recipe(stored.name, Plain(dtype), Uniform(stored))
