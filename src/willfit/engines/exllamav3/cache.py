"""What a layer keeps: pages of keys and values, latents, rings, recurrent states."""

from __future__ import annotations

from willfit.architectures.mixers import (
    Attention,
    CompressedAttention,
    CrossAttention,
    IndexedAttention,
    LatentAttention,
    Mixer,
    Recurrent,
)
from willfit.architectures.model import Layer
from willfit.engines.exllamav3.eras import Era
from willfit.engines.exllamav3.settings import PAGE, Resolved
from willfit.engines.layer_split import Kept
from willfit.quantities import ceil_div, round_up

#: Elements that share a scale in a quantized cache, bytes of a word that packs them, and bytes of a scale.
_GROUP, _WORD, _SCALE = 32, 4, 2

#: Tokens that a ring has beyond its window (`modules/sliding_attn.py`).
_RING_MORE = 2 * PAGE

_HALF, _SINGLE = 2, 4


def kept_by(
    layer: Layer,
    resolved: Resolved,
    era: Era,
    ranks: int = 1,
    bits: tuple[int, int] | None = None,
) -> list[Kept]:
    """What a layer keeps on a card.

    Parameters
    ----------
    ranks
        Tensor-parallel cards, which divide heads.
    bits
        Of keys and values; None for 16 bits.
    """
    return [kept for mixer in layer.mixers for kept in _kept(mixer, resolved, era, ranks, bits) if kept.bytes]


def token_bytes(mixer: Mixer, ranks: int, bits: tuple[int, int] | None) -> int:
    """Bytes of a token in the pages of a layer; 0 where it keeps none."""
    if isinstance(mixer, Attention | IndexedAttention):
        if isinstance(mixer, Attention) and (mixer.shares_cache or not mixer.keeps_cache):
            return 0
        # Values are kept at the width of keys.
        wide = ceil_div(mixer.kv_heads, ranks) * max(mixer.head_dim, mixer.value_dim)
        pool = mixer.index_pool if isinstance(mixer, Attention) else 1
        index = ceil_div(mixer.index_dim * _HALF, pool)
        return (2 * wide * _HALF if bits is None else _packed(wide, bits[0]) + _packed(wide, bits[1])) + index
    if isinstance(mixer, LatentAttention):
        # Every card holds the latents of all heads; rotated keys are not quantized.
        latent = mixer.kv_rank * _HALF if bits is None else _packed(mixer.kv_rank, bits[0])
        return latent + mixer.rope_dim * _HALF + ceil_div(mixer.index_dim * _HALF, mixer.index_pool)
    return 0


def unpacked_bytes(mixer: Mixer, resolved: Resolved, era: Era, ranks: int) -> int:
    """Bytes of keys and values that a layer unpacks from a quantized cache for a prompt."""
    if (
        resolved.bits is None
        or not isinstance(mixer, Attention | IndexedAttention)
        or era.reading == "direct"
    ):
        return 0
    tokens = min(resolved.tokens, 256 * PAGE) if era.reading == "window" else resolved.tokens
    return tokens * token_bytes(mixer, ranks, None)


def _kept(mixer: Mixer, resolved: Resolved, era: Era, ranks: int, bits: tuple[int, int] | None) -> list[Kept]:
    if isinstance(mixer, Recurrent):
        return _states(mixer, resolved, era, ranks)
    if isinstance(mixer, CrossAttention):
        return []
    if isinstance(mixer, CompressedAttention):
        whole = mixer.cached_elements(resolved.tokens) * _HALF
        return [Kept("kv_cache", resolved.tokens, "tokens", ceil_div(whole, resolved.tokens))]
    if isinstance(mixer, Attention) and mixer.window and resolved.rings:
        ring = round_up(mixer.window + _RING_MORE, PAGE) * token_bytes(mixer, ranks, None)
        return [Kept("window_cache", resolved.sequences, "sequences", ring)]
    return [Kept("kv_cache", resolved.tokens, "tokens", token_bytes(mixer, ranks, bits))]


def _states(mixer: Recurrent, resolved: Resolved, era: Era, ranks: int) -> list[Kept]:
    history = resolved.drafted if era.states != "one" else 0
    channels, heads = ceil_div(mixer.conv_channels, ranks), ceil_div(mixer.heads, ranks)
    state = ceil_div(mixer.recurrent, ranks)
    width = _SINGLE if mixer.kind == "mamba2" else era.state_bytes
    each = channels * (mixer.conv_kernel + history) * _HALF
    if state:
        each += {"one": 1, "history": history + 1, "two": 2}[era.states] * state * width
        if era.states == "two":
            # Inputs of the last pass, from which a rejected draft is computed anew.
            each += (history + 1) * (channels * _HALF + heads * (_HALF + _SINGLE))
    return [Kept("recurrent_state", resolved.sequences, "sequences", each)]


def _packed(elements: int, bits: int) -> int:
    """Bytes of so many quantized elements: a word for each bit of 32, and their scale."""
    return elements // _GROUP * (bits * _WORD + _SCALE)
