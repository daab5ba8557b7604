"""MXFP4 as gpt-oss is published: the fused experts only, everything else in the model's dtype.

`modules_to_not_convert` names attention, router, embeddings and head (Transformers `quantizer_mxfp4.py`
converts expert modules alone).
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.model import Tensor
from willfit.checkpoints.config import Config
from willfit.formats.base import Format
from willfit.formats.fp4 import Mxfp4
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recipes.patterns import Patterns


@dataclass(frozen=True)
class _Experts:
    """Routed experts that are not listed."""

    format: Format
    skip: Patterns

    def __call__(self, name: str, tensor: Tensor) -> Format | None:
        """See `Rule`."""
        if tensor.kind != "linear" or tensor.part != "experts" or self.skip.match(name):
            return None
        return self.format


def from_config(quant: Config, dtype: str) -> Recipe:
    """See `willfit.formats.recipes`."""
    skip = Patterns(quant.strings("modules_to_not_convert"), quant.where)
    return Recipe("mxfp4 experts", Plain(dtype), _Experts(Mxfp4(blocks=True), skip), skip.by_layer)
