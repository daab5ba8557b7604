"""Which layers see an explicit mask."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.architectures.model import Layer
from willfit.training.modelling.manners import Manner
from willfit.training.modelling.step import Step


def masked_step(step: Step, layer: Layer, manner: Manner) -> Step:
    """How the pass runs in a layer.

    A window that is not longer than the sequence needs an explicit mask, unless a kernel knows windows (transformers
    5.23 `masking_utils.py: _ignore_causal_mask_sdpa`, 4.38 `modeling_attn_mask_utils.py`); what a sparse indexer leaves
    out is masked; an encoder looks both ways.

    Parameters
    ----------
    step
        How the pass runs.
    layer, manner
        The layer, and how the family's code is written.
    """
    mixer = next((m for m in layer.mixers if isinstance(m, Attention | LatentAttention)), None)
    if isinstance(mixer, Attention) and not mixer.keeps_cache and not mixer.shares_cache:
        step = replace(step, attends_back=False)
    if mixer is None or step.flash:
        return step
    reach = mixer.window or (mixer.chunk if isinstance(mixer, Attention) else 0)
    looks_both_ways = manner.masked_both_ways and not step.attends_back
    masked = (
        manner.always_masked
        or looks_both_ways
        or bool(mixer.index_dim)
        or bool(reach and step.length >= reach)
    )
    return replace(step, masked=True) if masked else step
