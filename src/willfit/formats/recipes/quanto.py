"""optimum-quanto: int8 and float8 linears with a scale per channel, int4 and int2 with one per 128 inputs."""

from __future__ import annotations

from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.formats.base import Format
from willfit.formats.packed import PackedInt
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.patterns import Patterns
from willfit.formats.recipes.select import Uniform
from willfit.formats.scaled import Scaled


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    kind = quant.text("weights", default="int8")
    formats: dict[str, Format] = {
        "int8": Scaled("quanto int8", "int8", "channel", scale_dtype=dtype),
        "float8": Scaled("quanto fp8", "fp8_e4m3", "channel", scale_dtype=dtype),
        "int4": PackedInt("quanto", 4, 128, dtype, dtype),
        "int2": PackedInt("quanto", 2, 128, dtype, dtype),
    }
    if kind not in formats:
        raise BadInput(f"{quant.where}: unknown quanto weights {kind!r}", f"known: {', '.join(formats)}")
    skip = Patterns(quant.strings("modules_to_not_convert"), quant.where)
    stored = formats[kind]
    rule = Uniform(stored, skip, towers=True, mtp=False, fused=False)
    return Recipe(stored.name, Plain(dtype), rule, skip.by_layer)
