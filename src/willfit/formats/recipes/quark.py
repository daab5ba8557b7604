"""AMD Quark checkpoints: one global weight format, per-layer overrides, and an exclude list."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.model import Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.formats.base import Format
from willfit.formats.fp4 import Mxfp4
from willfit.formats.packed import PackedInt
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.patterns import Patterns
from willfit.formats.recipes.select import Uniform
from willfit.formats.scaled import Scaled


@dataclass(frozen=True)
class _Layered:
    """The usual rule, and other formats for the layers that a pattern names."""

    usual: Uniform
    overrides: tuple[tuple[Patterns, Format], ...]

    def __call__(self, name: str, tensor: Tensor) -> Format | None:
        """See `Rule`."""
        found = self.usual(name, tensor)
        if found is not None:
            for patterns, stored in self.overrides:
                if patterns.match(name):
                    return stored
        return found


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    usual = quant.section("global_quant_config")
    if usual is None:
        raise BadInput(f"{quant.where}: the field 'global_quant_config' is missing", "Quark needs it")
    skip = Patterns(quant.strings("exclude"), quant.where)
    stored = _format(usual, dtype)
    rule = Uniform(stored, skip, head=True, towers=True)
    layers = quant.section("layer_quant_config")
    overrides = []
    for pattern in layers or ():
        section = layers and layers.section(pattern)
        if section:
            overrides.append((Patterns([pattern], quant.where), _format(section, dtype)))
    cache = quant.section("kv_cache_quant_config")
    return Recipe(
        stored.name,
        Plain(dtype),
        _Layered(rule, tuple(overrides)) if overrides else rule,
        skip.by_layer or any(patterns.by_layer for patterns, _ in overrides),
        "fp8_e4m3" if cache is not None and cache.fields else None,
    )


def _format(section: Config, dtype: str) -> Format:
    weight = section.section("weight")
    if weight is None:
        return Plain(dtype)
    kind = weight.text("dtype")
    scheme = weight.text("qscheme", default="per_tensor")
    group = weight.integer("group_size", default=0)
    inputs = section.section("input_tensors")
    static = inputs is not None and not inputs.boolean("is_dynamic", default=False)
    if kind == "fp4":
        return Mxfp4()
    if kind in ("int4", "uint4"):
        return PackedInt("quark", 4, group or -1, dtype, "" if kind == "int4" else "int32")
    if kind not in ("fp8_e4m3", "int8"):
        raise BadInput(
            f"{weight.where}: unknown Quark dtype {kind!r}", "known: fp8_e4m3, int8, int4, uint4, fp4"
        )
    return Scaled(
        "fp8" if kind == "fp8_e4m3" else "int8",
        kind,
        "tensor" if scheme == "per_tensor" else "channel",
        input_dtype="fp32" if static else "",
    )
