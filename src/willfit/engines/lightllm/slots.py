"""Bytes of a slot: what one token takes in all layers of a rank."""

from __future__ import annotations

from willfit.architectures.mixers import Attention, LatentAttention, Mixer
from willfit.architectures.model import Architecture
from willfit.engines.lightllm.settings import Settings
from willfit.quantities import DTYPE_BYTES, ceil_div

#: Index keys beside an unquantized latent: 128 one-byte numbers and a scale, padded
#: (`kv_cache_mem_manager/deepseek3_2mem_manager.py`).
_INDEX_PAD = 16

#: Elements of a quantized latent, and of its index keys, that share a scale of four bytes
#: (`fp8_per_token_group_quant_deepseek3_2mem_manager.py`).
_INDEX_GROUP, _SCALE = 128, 4


def slot_bytes(architecture: Architecture, settings: Settings, dtype: str) -> int:
    """Bytes of a token in all layers of a rank, and in those of draft models.

    Windows do not make it smaller (`kv_cache_mem_manager/mem_manager.py: get_cell_size`).
    """
    total = deepest = 0
    for layer, times in architecture.blocks:
        size = sum(_token_bytes(mixer, settings, dtype) for mixer in layer.mixers)
        total += times * size
        deepest = max(deepest, size)
    return total + settings.draft_layers * deepest


def layers_with_slots(architecture: Architecture) -> int:
    """Layers that keep something of each token."""
    kinds = (Attention, LatentAttention)
    return sum(
        times
        for layer, times in architecture.blocks
        if any(isinstance(mixer, kinds) for mixer in layer.mixers)
    )


def _token_bytes(mixer: Mixer, settings: Settings, dtype: str) -> int:
    size = DTYPE_BYTES[dtype]
    if isinstance(mixer, Attention):
        kv_type, width = settings.kv_type, mixer.head_dim + mixer.value_dim
        heads = ceil_div(mixer.kv_heads, settings.group_ranks)
        if kv_type is None:
            return heads * width * size
        scales = 2 if kv_type.group is None else width // kv_type.group if kv_type.group else 0
        return heads * (width * kv_type.bits // 8 + scales * size)
    if isinstance(mixer, LatentAttention):
        return _latent_bytes(mixer, settings, size)
    return 0


def _latent_bytes(mixer: LatentAttention, settings: Settings, size: int) -> int:
    """A latent is quantized for sparse attention only, and before 1.2 by `--mode triton_fp8kv`."""
    if settings.llm_kv_type == "triton_fp8kv":
        return mixer.latent_per_token + size
    if not mixer.index_dim:
        return mixer.latent_per_token * size
    if settings.llm_kv_type == "fp8kv_dsa":
        latent = mixer.kv_rank + mixer.kv_rank // _INDEX_GROUP * _SCALE + 2 * mixer.rope_dim
        return latent + mixer.index_dim + _SCALE
    return mixer.latent_per_token * size + mixer.index_dim + _INDEX_PAD
