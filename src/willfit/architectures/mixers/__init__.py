"""What mixes tokens in a layer, and what it must keep to do so: one module per kind."""

from willfit.architectures.mixers.attention import Attention, CrossAttention
from willfit.architectures.mixers.base import FixedState, Mixer
from willfit.architectures.mixers.compressed import CompressedAttention
from willfit.architectures.mixers.indexed import IndexedAttention
from willfit.architectures.mixers.latent import LatentAttention
from willfit.architectures.mixers.recurrent import Recurrent

__all__ = [
    "Attention",
    "CompressedAttention",
    "CrossAttention",
    "FixedState",
    "IndexedAttention",
    "LatentAttention",
    "Mixer",
    "Recurrent",
]
