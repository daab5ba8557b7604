"""MLC's own quantization: linears, experts and look-up tables in groups, packed into whole uint32 words.

A name says it all (`mlc_llm/quantization/quantization.py`): `q4f16_1` has 4 bits, numbers in fp16, and after the
underscore the layout, or what is left out (`_2`: the look-up table and the head). `q4f16_ft` is FasterTransformer's
layout, one scale for each row, with groups for the head, the table and rows that it has no kernel for, and experts as
they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.model import Tensor
from willfit.checkpoints.config import Config
from willfit.formats.base import Format
from willfit.formats.packed import GroupWords, PackedInt
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.settings import bit_width

#: A router of more experts than this is quantized as any linear (`quantization/utils.py: is_moe_gate`).
_MOST_ROUTED = 256

#: Rows that FasterTransformer's kernels take are multiples of this.
_FT_ROWS = 8


@dataclass(frozen=True)
class _Rule:
    """Everything but norms, encoders and narrow routers.

    Attributes
    ----------
    groups
        The format of what is in groups.
    ends
        Whether the look-up table and the head are quantized.
    rows
        The format with a scale for each row, where there is one.
    """

    groups: Format
    ends: bool
    rows: Format | None

    def __call__(self, name: str, tensor: Tensor) -> Format | None:
        """See `Rule`."""
        if tensor.kind not in ("linear", "embedding") or tensor.part in ("vision", "audio", "norm", "mtp"):
            return None
        if len(tensor.shape) < 2 or (tensor.part == "router" and tensor.shape[-2] <= _MOST_ROUTED):
            return None
        if tensor.kind == "embedding" or tensor.part == "head":
            return self.groups if self.ends else None
        if self.rows is None:
            return self.groups
        if tensor.part == "experts":
            return None
        return self.rows if tensor.shape[-2] % _FT_ROWS == 0 else self.groups


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    bits, group = bit_width(quant, "bits", most=8), quant.integer("group_size", default=32)
    stored = quant.text("dtype", default=dtype)
    groups = GroupWords("mlc", bits, group, stored)
    layout = quant.text("layout", default="")
    rows = PackedInt("mlc", bits, -1, stored) if layout == "ft" else None
    rule = _Rule(groups, quant.raw("ends") is not False, rows)
    return Recipe(rows.name if rows else groups.name, Plain(stored), rule)
