"""What generate() keeps per token and per sequence: `cache_utils.py`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from willfit.architectures.mixers import Attention, LatentAttention, Mixer, Recurrent
from willfit.architectures.model import Architecture
from willfit.engines.transformers.activations import larger
from willfit.engines.transformers.eras import Era
from willfit.quantities import at_least

#: `QuantizedCacheConfig`: newest tokens that stay unquantized, and elements that share a scale.
RESIDUAL_TOKENS = 128
QUANTIZED_GROUP = 64


@dataclass(frozen=True, slots=True)
class Kept:
    """Elements that one sequence keeps.

    Attributes
    ----------
    elements
        Keys, values and states of all layers that have the compute dtype.
    wide
        Elements of states that are fp32.
    largest_layer
        Keys and values of the largest layer.
    tensors
        How many growing tensors there are.
    largest_tensor
        Elements of the largest one.
    """

    elements: Any
    wide: int
    largest_layer: Any
    tensors: int
    largest_tensor: Any


def kept(
    architecture: Architecture, era: Era, tokens: Any, source_tokens: int, ranks: int, windowed: bool
) -> Kept:
    """Elements that one sequence keeps after so many tokens.

    Parameters
    ----------
    tokens
        Tokens so far, or an array of them.
    source_tokens
        Encoder positions, for an encoder-decoder.
    ranks
        Tensor-parallel ranks; key/value heads are divided by them where they can be.
    windowed
        Layers with a window hold no more than it. During a prefill they still hold the whole prompt: what
        is kept is a view of it.
    """
    total: Any = 0
    largest: Any = 0
    growing: Any = 0
    tensors = wide = 0
    for layer, times in architecture.blocks:
        here: Any = 0
        for mixer in layer.mixers:
            held, state = _states(mixer, era)
            divisor = rank_divisor(mixer, ranks)
            size = (mixer_elements(mixer, era, tokens, source_tokens, windowed) + held) // divisor
            here = here + size
            wide += state // divisor * times
            if _grows(mixer):
                tensors += 2 * times
                growing = larger(growing, size)
        total = total + here * times
        largest = larger(largest, here)
    return Kept(total, wide, largest, tensors, growing // 2)


def as_cached(architecture: Architecture) -> Architecture:
    """The architecture with as many key/value heads as are cached.

    Falcon with grouped heads makes its keys and values for all query heads before it caches them
    (`models/falcon/modeling_falcon.py: FalconAttention._split_heads`, in all versions).
    """
    if architecture.family != "falcon":
        return architecture

    def widened(mixer: Mixer) -> Mixer:
        grouped = isinstance(mixer, Attention) and 1 < mixer.kv_heads < mixer.heads
        return replace(mixer, kv_heads=mixer.heads) if grouped and isinstance(mixer, Attention) else mixer

    made = {
        id(layer): replace(layer, mixers=tuple(widened(mixer) for mixer in layer.mixers))
        for layer, _ in architecture.blocks
    }
    return replace(architecture, layers=tuple(made[id(layer)] for layer in architecture.layers))


def _grows(mixer: Mixer) -> bool:
    if isinstance(mixer, Attention):
        return mixer.keeps_cache and not mixer.shares_cache
    return isinstance(mixer, LatentAttention)


def rank_divisor(mixer: Mixer, ranks: int) -> int:
    """By how much tensor parallelism divides what a mixer keeps."""
    heads = getattr(mixer, "kv_heads", 1)
    return ranks if ranks > 1 and heads % ranks == 0 else 1


def mixer_elements(mixer: Mixer, era: Era, tokens: Any, source_tokens: int, windowed: bool) -> Any:
    """Elements that one layer keeps after so many tokens; see `kept`."""
    if isinstance(mixer, LatentAttention):
        if era.latent_cache:
            return mixer.cached_elements(tokens)
        per_head = mixer.nope_dim + mixer.rope_dim + mixer.value_dim
        return tokens * (mixer.heads * per_head + mixer.index_dim)
    if isinstance(mixer, Attention) and not (windowed and era.windows):
        return tokens * mixer.elements_per_token if _grows(mixer) else 0 * tokens
    return mixer.cached_elements(tokens, source_tokens)


def _states(mixer: Mixer, era: Era) -> tuple[int, int]:
    """Elements of states of fixed size: those in the compute dtype, and those in fp32.

    A convolution keeps its kernel's length of inputs.
    """
    if not isinstance(mixer, Recurrent):
        return 0, 0
    inputs = mixer.conv_channels * mixer.conv_kernel
    return (inputs, mixer.recurrent) if era.wide_states else (inputs + mixer.recurrent, 0)


def quantized_bytes(elements: Any, tokens: Any, bits: int, width: int) -> Any:
    """Bytes of a quantized cache: `bits` an element and a 16-bit scale and zero point per group.

    The newest tokens stay as they are; they are counted in full.
    """
    residual = elements // at_least(tokens, 1) * RESIDUAL_TOKENS * width
    return elements * bits // 8 + elements // QUANTIZED_GROUP * 4 + residual
