"""Bytes of LMDeploy's cache: blocks of all layers together, and states."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.mixers import Attention, LatentAttention, Mixer
from willfit.architectures.model import Architecture
from willfit.engines.lmdeploy.eras import Era
from willfit.engines.lmdeploy.layout import Layout
from willfit.engines.lmdeploy.settings import QUANT_POLICIES, Backend, Settings, block_length
from willfit.engines.ranks import state_bytes_on_rank
from willfit.quantities import DTYPE_BYTES, ceil_div, round_up

#: Each array of a block is padded to this many bytes by the PyTorch engine (`cache_engine/schema.py: CacheDesc`).
_ALIGNMENT = 256

#: Models whose recurrent state the PyTorch engine keeps in the model's dtype (`configurations/qwen3_next.py`).
_STATES_IN_MODEL_DTYPE = frozenset({"qwen3_next"})

_SCALE_BITS = 32

#: Tokens over which the cache of other kinds of attention is averaged.
_SAMPLE = 4096


@dataclass(frozen=True, slots=True)
class Blocks:
    """How the cache is divided on a rank.

    Attributes
    ----------
    length
        Tokens of a block, those that other ranks hold of the same sequence included.
    bytes
        Bytes of a block over all layers; 0 without attention.
    state_bytes
        Bytes of fixed state of one sequence.
    """

    length: int
    bytes: int
    state_bytes: int

    def count(self, tokens: int) -> int:
        """Blocks of a sequence."""
        return ceil_div(tokens, self.length)


def blocks_of(
    architecture: Architecture, settings: Settings, backend: Backend, dtype: str, era: Era, layout: Layout
) -> Blocks:
    """Blocks and states of the cache on a rank.

    Every layer holds every token: windows do not make blocks smaller
    (`models/llama/unified_attention_layer.cc`, `cache_engine/plan.py`). A draft module has blocks like the widest
    layer's.
    """
    mixers = [(mixer, times) for layer, times in architecture.blocks for mixer in layer.mixers]
    widths = [_key_width(mixer) for mixer, _ in mixers]
    length = block_length(settings, backend, max(widths, default=0), era)
    alignment = _ALIGNMENT if backend == "pytorch" else 1
    total = widest = 0
    for mixer, times in mixers:
        arrays = _arrays(mixer, settings, dtype, layout.attention)
        size = sum(round_up(length * bits // 8, alignment) for bits in arrays)
        total += times * size
        widest = max(widest, size)
    if settings.num_draft_tokens and backend == "pytorch" and era.drafts:
        total += widest
    in_dtype = backend == "pytorch" and architecture.model_type in _STATES_IN_MODEL_DTYPE
    states = state_bytes_on_rank(architecture, dtype, dtype if in_dtype else "fp32", layout.attention)
    return Blocks(length * layout.context, total, states)


def _key_width(mixer: Mixer) -> int:
    """Elements of a key, for kernels that need small blocks for wide ones; those of sparse attention do not."""
    if isinstance(mixer, LatentAttention):
        return 0 if mixer.index_dim else mixer.latent_per_token
    return mixer.head_dim if isinstance(mixer, Attention) else 0


def _arrays(mixer: Mixer, settings: Settings, dtype: str, ranks: int) -> tuple[int, ...]:
    """Bits of one token in each array of a block: keys, values, and the scales and zero points of both.

    Index keys of sparse attention are one-byte numbers with one fp32 scale (`configurations/deepseek_v32.py`).
    """
    whole = 8 * DTYPE_BYTES[dtype]
    key_bits, value_bits, key_scales, value_scales = QUANT_POLICIES.get(
        settings.quant_policy, (whole, whole, 0, 0)
    )
    if isinstance(mixer, LatentAttention):
        index = (8 * mixer.index_dim, _SCALE_BITS) if mixer.index_dim else ()
        return (
            mixer.latent_per_token * key_bits,
            key_scales * 16,
            *(bits // mixer.index_pool for bits in index),
        )
    if isinstance(mixer, Attention):
        heads = ceil_div(mixer.kv_heads, ranks)
        keys, values = mixer.head_dim * key_bits, mixer.value_dim * value_bits
        return heads * keys, heads * values, heads * key_scales * 16, heads * value_scales * 16
    return (mixer.cached_elements(_SAMPLE) * whole // _SAMPLE,)
