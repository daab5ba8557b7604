"""HQQ checkpoints: linears by their tag (`self_attn.q_proj`) or all alike; `skip_modules` stay.

`quant_config` holds either `weight_quant_params` or one such object per tag (Transformers `HqqConfig`).
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.model import Tensor
from willfit.checkpoints.config import Config
from willfit.formats.base import Format
from willfit.formats.packed import Hqq
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.patterns import Patterns
from willfit.formats.recipes.select import Uniform
from willfit.formats.recipes.settings import bit_width, group_size


@dataclass(frozen=True)
class _Tagged:
    """A format per tag; linears without a tag stay."""

    rules: tuple[tuple[Patterns, Uniform], ...]

    def __call__(self, name: str, tensor: Tensor) -> Format | None:
        """See `Rule`."""
        for tags, rule in self.rules:
            if tags.match(name):
                return rule(name, tensor)
        return None


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    skip = Patterns(quant.strings("skip_modules"), quant.where)
    settings = quant.section("quant_config") or quant
    whole = settings.section("weight_quant_params")
    if whole is not None or "nbits" in settings:
        stored = _format(whole or settings, dtype)
        return Recipe(stored.name, Plain(dtype), Uniform(stored, skip, mtp=False), skip.by_layer)
    rules = []
    names = []
    for tag in settings:
        section = settings.section(tag)
        params = section and section.section("weight_quant_params")
        if params:
            stored = _format(params, dtype)
            names.append(stored.name)
            rules.append((Patterns([tag], quant.where), Uniform(stored, skip, mtp=False)))
    return Recipe(
        " + ".join(dict.fromkeys(names)) or "hqq", Plain(dtype), _Tagged(tuple(rules)), skip.by_layer
    )


def _format(params: Config, dtype: str) -> Hqq:
    return Hqq(bit_width(params, "nbits", most=8), group_size(params, 64), dtype)
