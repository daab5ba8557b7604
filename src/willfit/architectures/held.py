"""What running sequences must hold: the minimum that the maths of the layers needs, whatever the engine."""

from __future__ import annotations

from typing import Any

from willfit.architectures.model import Architecture, Layer
from willfit.quantities import DTYPE_BYTES

#: Recurrent states are kept in fp32 unless the config says otherwise.
RECURRENT_DTYPE = "fp32"


def layer_cache_bytes(layer: Layer, tokens: Any, element_bytes: int, source_tokens: Any = 0) -> Any:
    """Bytes of cache that one sequence holds in one layer."""
    return sum(mixer.cached_elements(tokens, source_tokens) for mixer in layer.mixers) * element_bytes


def layer_state_bytes(layer: Layer, dtype: str, recurrent_dtype: str = RECURRENT_DTYPE) -> int:
    """Bytes of fixed state that one sequence holds in one layer.

    Parameters
    ----------
    dtype
        The model's dtype, in which convolutions keep their inputs.
    recurrent_dtype
        Of recurrent states for which the config names none.
    """
    size = 0
    for mixer in layer.mixers:
        for state in mixer.fixed_states:
            stored = dtype if state.name == "conv" else state.dtype or recurrent_dtype
            size += state.elements * DTYPE_BYTES[stored]
    return size


def cache_bytes(architecture: Architecture, tokens: Any, element_bytes: int, source_tokens: Any = 0) -> Any:
    """Bytes of cache that one sequence of `tokens` tokens holds over all layers."""
    return sum(
        times * layer_cache_bytes(layer, tokens, element_bytes, source_tokens or architecture.encoder_tokens)
        for layer, times in architecture.blocks
    )


def state_bytes(architecture: Architecture, dtype: str) -> int:
    """Bytes of fixed state that one sequence holds over all layers."""
    return sum(times * layer_state_bytes(layer, dtype) for layer, times in architecture.blocks)


def held_bytes(architecture: Architecture, tokens: Any, dtype: str = "bf16") -> Any:
    """Cache and state of one sequence, both as stored without quantization."""
    return cache_bytes(architecture, tokens, DTYPE_BYTES[dtype]) + state_bytes(architecture, dtype)


def cache_bytes_per_token(architecture: Architecture, element_bytes: int) -> int:
    """Bytes that one more token adds while no window or chunk is full."""
    first = cache_bytes(architecture, 1, element_bytes)
    return int(cache_bytes(architecture, 2, element_bytes) - first)
