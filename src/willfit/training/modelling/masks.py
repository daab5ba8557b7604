"""Which layers see an explicit mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.architectures.mixers import Attention, CrossAttention, LatentAttention
from willfit.architectures.model import Layer
from willfit.architectures.traits import Traits
from willfit.quantities import DTYPE_BYTES
from willfit.training.modelling.manners import Manner
from willfit.training.modelling.step import Step


def mask_bytes(step: Step, layers: Sequence[Layer], manner: Manner, width: int) -> int:
    """Bytes of the masks that layers share: one for each reach. Checkpoints hold them, as they hold all arguments.

    transformers 5.23 `masking_utils.py`: a byte for each pair where SDPA makes the mask of it, and a number in the
    dtype of the stream for eager attention.

    Parameters
    ----------
    step
        How the pass runs.
    layers, manner
        Layers that are checkpointed, and how the family's code is written.
    width
        Bytes of an element of the stream.
    """
    eager = step.attention == "eager" or not manner.sdpa
    if step.flash:
        return 0
    found: dict[int, int] = {}
    for layer in layers:
        mixer = next((m for m in layer.mixers if isinstance(m, Attention)), None)
        if mixer is None or (mixer.window or mixer.chunk) in found:
            continue
        own = masked_step(step, layer, manner)
        made = own.masked or (eager and own.attends_back)
        sequences = step.batch if step.masked else 1
        size = sequences * step.length * step.keys * (width if eager else 1)
        found[mixer.window or mixer.chunk] = size if made else 0
    return sum(found.values())


def arguments_bytes(step: Step, layers: Sequence[Layer], manner: Manner, traits: Traits, dtype: str) -> int:
    """Bytes of what layers are given beside the stream of this dtype: masks, and biases that all of them share.

    `T5Attention.forward`: each stack's bias is that of its first layer, and cross attention's, of zeros, has the dtype
    of products.
    """
    width = DTYPE_BYTES[dtype]
    found = mask_bytes(step, layers, manner, width)
    if traits.position_bias != "relative" or manner.disentangled:
        return found
    for mixer in layers[0].mixers:
        if isinstance(mixer, Attention):
            found += mixer.heads // step.tensor_ranks * step.length * step.keys * width
        elif isinstance(mixer, CrossAttention):
            source = mixer.source_tokens or step.source or step.length
            found += mixer.heads // step.tensor_ranks * step.length * source * step.width
    return found


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
