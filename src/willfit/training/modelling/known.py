"""What of a model the tape writes only roughly, so that a reader can be told."""

from __future__ import annotations

from willfit.architectures.mixers import CompressedAttention, Recurrent
from willfit.architectures.model import Architecture
from willfit.training.modelling.recurrent import KINDS

#: Ways of putting a layer together that are written as a plain residual branch each.
_ROUGH_BLOCKS = {
    "hyper": "several residual streams that each token mixes",
    "shortcut": "experts beside the second half of a layer",
}


def roughly_modelled(architecture: Architecture) -> tuple[str, ...]:
    """Parts of a model whose activations are not written operation by operation.

    Parameters
    ----------
    architecture
        The model.
    """
    found = []
    if architecture.traits.block in _ROUGH_BLOCKS:
        found.append(_ROUGH_BLOCKS[architecture.traits.block])
    mixers = [mixer for layer, _ in architecture.blocks for mixer in layer.mixers]
    if any(isinstance(mixer, CompressedAttention) for mixer in mixers):
        found.append("compressed attention")
    kinds = {mixer.kind for mixer in mixers if isinstance(mixer, Recurrent)} - set(KINDS)
    found += sorted(kinds)
    if any("attention" in tensor.part for tensor in architecture.shared if tensor.kind == "linear"):
        found.append("attention that several layers share")
    return tuple(found)
