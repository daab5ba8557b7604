"""Masks over pairs of positions, and biases: one of each for all layers that see equally far (`masking_utils.py`)."""

from __future__ import annotations

from typing import Any

from willfit.architectures.mixers import Recurrent
from willfit.architectures.model import Architecture
from willfit.engines.transformers.eras import Era
from willfit.engines.transformers.passes import Pass
from willfit.quantities import ceil_div

#: Tokens on a side of a block of flex attention's mask, and bytes that the mask keeps for a block: int32 counts and
#: indices of partial and full blocks, by rows and by columns (torch `nn/attention/flex_attention.py: BlockMask`).
_FLEX_BLOCK, _FLEX_BYTES = 128, 4 * 4


def mask_bytes(architecture: Architecture, era: Era, step: Pass) -> Any:
    """Bytes of the masks and biases that live through all layers."""
    mask: Any = 0
    if step.attention == "eager":
        reaches = len(_reaches(architecture))
        kinds = reaches if era.windows else min(reaches, 1)
        mask = kinds * step.batch * step.queries * step.length * step.width
    elif step.attention == "sdpa" and is_masked(architecture, era, step):
        mask = step.queries * step.length * (1 if era.windows else step.width)
    elif step.attention == "flex_attention":
        mask = (
            step.batch
            * ceil_div(step.queries, _FLEX_BLOCK)
            * ceil_div(step.length, _FLEX_BLOCK)
            * _FLEX_BYTES
        )
    if is_biased(architecture):
        # A bias for each head and pair of positions, one for all sequences and layers. Where scores are eager the same
        # with the mask is kept beside it; SDPA is given that anew in each layer.
        mask += (1 if era.biased_sdpa else 2) * biases(architecture, step)
    return mask


def is_biased(architecture: Architecture) -> bool:
    """Whether attention scores get a learned bias for each pair of positions (`models/t5/modeling_t5.py`)."""
    return architecture.family == "t5"


def biases(architecture: Architecture, step: Pass) -> Any:
    """Bytes of a bias for each head and pair of positions."""
    heads = max(getattr(mixer, "heads", 0) for layer, _ in architecture.blocks for mixer in layer.mixers)
    return (heads // step.ranks or 1) * step.queries * step.length * step.width


def is_masked(architecture: Architecture, era: Era, step: Pass) -> bool:
    """Whether SDPA needs an explicit mask: for part of a prompt, or where a window is shorter than it."""
    if step.chunked or (era.alibi_masks and architecture.family == "falcon" and _any(step.queries > 1)):
        return True
    return any(
        reach and _any(step.queries > 1) and _any(step.length > reach) for reach in _reaches(architecture)
    )


def _reaches(architecture: Architecture) -> set[int]:
    """How far attention layers see: windows and chunks, 0 for everything. Each has a mask of its own."""
    return {
        getattr(mixer, "window", 0) or getattr(mixer, "chunk", 0)
        for layer, _ in architecture.blocks
        for mixer in layer.mixers
        if not isinstance(mixer, Recurrent)
    }


def _any(truth: Any) -> bool:
    return bool(truth.any()) if hasattr(truth, "any") else bool(truth)
