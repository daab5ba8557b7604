"""torchao: the configuration class decides the layout of every linear that is not listed.

`quant_type` is a name (`int4_weight_only`) with `quant_type_kwargs`, or `{"default": {"_type":
"Int4WeightOnlyConfig", "_data": {...}}}` (Transformers `TorchAoConfig`).
"""

from __future__ import annotations

from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.formats.base import Format
from willfit.formats.packed import PackedInt
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.patterns import Patterns
from willfit.formats.recipes.select import Uniform
from willfit.formats.recipes.settings import group_size
from willfit.formats.scaled import Scaled


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    skip = Patterns(quant.strings("modules_to_not_convert"), quant.where)
    stored = _format(quant, dtype)
    rule = Uniform(stored, skip, towers=True, mtp=False, fused=False)
    return Recipe(stored.name, Plain(dtype), rule, skip.by_layer)


def _format(quant: Config, dtype: str) -> Format:
    kind = quant.raw("quant_type")
    if isinstance(kind, str):
        settings = quant.section("quant_type_kwargs") or quant
    else:
        chosen = quant.section("quant_type")
        chosen = (chosen and chosen.section("default")) or chosen
        kind = chosen.text("_type") if chosen else ""
        settings = (chosen and chosen.section("_data")) or quant
    key = kind.lower().replace("_", "").removesuffix("config")
    if key.startswith(("int4weightonly", "int8dynamicactivationint4")):
        return PackedInt("torchao", 4, group_size(settings), dtype, dtype)
    if key.startswith("int8"):
        return Scaled("torchao int8", "int8", "channel", scale_dtype=dtype)
    if key.startswith("float8"):
        granular = "row" in str(settings.raw("granularity") or "row").lower()
        return Scaled("torchao fp8", "fp8_e4m3", "channel" if granular else "tensor")
    raise BadInput(f"{quant.where}: unknown torchao type {kind!r}", "known: int4, int8 and float8 types")
