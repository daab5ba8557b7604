"""AutoRound checkpoints: GPTQ or AWQ layouts, MXFP4 or NVFP4, with per-module overrides in `extra_config`.

`packing_format` (`auto_round:auto_gptq`, `auto_round:auto_awq`) names the layout; 16 bits in `extra_config`
leave a module alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from willfit.architectures.model import Tensor
from willfit.checkpoints.config import Config
from willfit.formats.awq import Awq
from willfit.formats.base import Format
from willfit.formats.fp4 import Mxfp4, Nvfp4
from willfit.formats.gptq import Gptq
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.patterns import module_of, without_prefix
from willfit.formats.recipes.select import Uniform
from willfit.formats.recipes.settings import bit_width, group_size


@dataclass(frozen=True)
class _Overridden:
    """The usual rule, and what `extra_config` says about single modules."""

    usual: Uniform
    modules: Mapping[str, Format | None]

    def __call__(self, name: str, tensor: Tensor) -> Format | None:
        """See `Rule`."""
        found = self.usual(name, tensor)
        return found and self.modules.get(without_prefix(module_of(name)), found)


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    stored = _format(quant, quant)
    rule = Uniform(stored, mtp=False, multiple=(32, 32))
    extra = quant.section("extra_config")
    if extra is None:
        return Recipe(f"auto-round {stored.name}", Plain(dtype), rule)
    modules: dict[str, Format | None] = {}
    for module in extra:
        settings = extra.section(module)
        if settings is not None:
            whole = settings.integer("bits", default=quant.integer("bits", default=4)) >= 16
            modules[without_prefix(module)] = None if whole else _format(settings, quant)
    return Recipe(f"auto-round {stored.name}", Plain(dtype), _Overridden(rule, modules), by_layer=True)


def _format(settings: Config, usual: Config) -> Format:
    bits = bit_width(settings, "bits", default=bit_width(usual, "bits", most=8), most=8)
    group = group_size(settings, group_size(usual))
    data_type = settings.text("data_type", default=usual.text("data_type", default="int")).lower()
    packing = usual.text("packing_format", default="auto_round:auto_gptq").lower()
    if data_type.startswith("mx_fp"):
        return Mxfp4()
    if data_type.startswith("nv_fp"):
        return Nvfp4(True, group, "weight_packed", "weight_global_scale", "input_global_scale")
    return Awq(bits, group) if "awq" in packing else Gptq(bits, group, indexed=False)
