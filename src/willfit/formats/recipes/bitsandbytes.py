"""bitsandbytes checkpoints and on-the-fly loading: every `nn.Linear` but the head.

`llm_int8_skip_modules`, where given, replaces the default, which is the output projection (Transformers
`get_modules_to_not_convert`). Encoders are quantized unless listed. Fused 3-D experts are no linears.
"""

from __future__ import annotations

from typing import Literal

from willfit.checkpoints.config import Config
from willfit.formats.base import Format
from willfit.formats.bitsandbytes import Bnb4, BnbInt8
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.patterns import Patterns
from willfit.formats.recipes.select import Uniform


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    skip = Patterns(quant.strings("llm_int8_skip_modules"), quant.where)
    if quant.boolean("load_in_8bit", "_load_in_8bit", default=False):
        stored: Format = BnbInt8()
    else:
        fp4 = quant.text("bnb_4bit_quant_type", default="fp4").lower() == "fp4"
        kind: Literal["nf4", "fp4"] = "fp4" if fp4 else "nf4"
        stored = Bnb4(kind, quant.boolean("bnb_4bit_use_double_quant", default=False), dtype)
    rule = Uniform(stored, skip, head=bool(skip), towers=True, mtp=False, fused=False)
    return Recipe(stored.name, Plain(dtype), rule, skip.by_layer)
