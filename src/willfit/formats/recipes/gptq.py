"""GPTQ checkpoints: the linears of the decoder layers, with GPTQModel's per-module overrides.

`dynamic` maps regular expressions, matched from the start of the module name, to overrides; `-:` leaves a
module alone, `+:` or nothing overrides `bits` and `group_size`; the first match counts (GPTQModel
`_resolve_dynamic_override`). `lm_head: true` quantizes the output projection, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import gcd

from willfit.architectures.model import Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.formats.base import Format
from willfit.formats.gptq import Gptq
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.patterns import Patterns, module_of
from willfit.formats.recipes.select import Uniform
from willfit.formats.recipes.settings import bit_width, group_size


@dataclass(frozen=True)
class _Overridden:
    """The usual rule, and what `dynamic` changes in it."""

    usual: Uniform
    overrides: tuple[tuple[re.Pattern[str], Gptq | None], ...]

    def __call__(self, name: str, tensor: Tensor) -> Format | None:
        """See `Rule`."""
        found = self.usual(name, tensor)
        if found is None:
            return None
        module = module_of(name)
        for pattern, stored in self.overrides:
            if pattern.match(module):
                return stored
        return found


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    bits = bit_width(quant, "bits", "w_bit", "wbits", most=8)
    group = group_size(quant)
    stored = Gptq(bits, group, ordered=quant.boolean("desc_act", default=False))
    skip = Patterns(quant.strings("modules_to_not_convert", "modules_in_block_to_not_quantize"), quant.where)
    # Zero points of rows fill whole words together: eight rows of 4 bits, 32 of 3.
    whole = 32 // gcd(32, bits)
    rule = Uniform(
        stored, skip, head=quant.boolean("lm_head", default=False), mtp=False, multiple=(whole, 32)
    )
    dynamic = quant.section("dynamic")
    if dynamic is None:
        return Recipe(stored.name, Plain(dtype), rule, skip.by_layer)
    overrides = tuple(_override(text, dynamic, stored) for text in dynamic)
    return Recipe(stored.name, Plain(dtype), _Overridden(rule, overrides), by_layer=True)


def _override(text: str, dynamic: Config, usual: Gptq) -> tuple[re.Pattern[str], Gptq | None]:
    try:
        pattern = re.compile(text.removeprefix("-:").removeprefix("+:"))
    except re.error as error:
        raise BadInput(f"{dynamic.where}: the pattern {text!r} is no regular expression: {error}") from error
    if text.startswith("-:"):
        return pattern, None
    changes = dynamic.section(text)
    if changes is None:
        return pattern, usual
    bits = bit_width(changes, "bits", default=usual.bits, most=8)
    return pattern, replace(usual, bits=bits, group=group_size(changes, usual.group))
