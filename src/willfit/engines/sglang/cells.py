"""Bytes of one token, and of one sequence's states, on a rank.

`model_executor/pool_configurator.py`, `mem_cache/kv_cache_configurator.py: calculate_mla_kv_cache_dim`,
`configs/mamba_utils.py` (0.5.23).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from willfit.architectures.mixers import (
    Attention,
    CompressedAttention,
    CrossAttention,
    IndexedAttention,
    LatentAttention,
    Mixer,
)
from willfit.architectures.model import Architecture, Layer
from willfit.engines.base import Subject
from willfit.engines.sglang.eras import Era
from willfit.engines.sglang.settings import Settings
from willfit.engines.sglang.weights import pipeline_stages
from willfit.errors import BadInput
from willfit.hardware.device import Device
from willfit.quantities import DTYPE_BYTES, ceil_div, dtype_name

#: What `--kv-cache-dtype` takes (`arg_groups/fields/model.py`).
_KV_DTYPES = (
    "auto", "fp8_e5m2", "fp8_e4m3", "bf16", "bfloat16", "fp4_e2m1", "fp4_mx_block16", "nvfp4", "mxfp8"
)  # fmt: skip
_FP4 = ("fp4_e2m1", "fp4_mx_block16", "nvfp4")

#: Elements that share a one-byte scale in 4-bit and in MXFP8 caches, and a 4-byte scale in sparse latent ones.
_FP4_BLOCK, _MXFP8_BLOCK, _SPARSE_BLOCK = 16, 32, 128

#: A token of DeepSeek-V4's cache: 8-bit latent with scales, 16-bit rotary part, padding (`deepseek_v4_memory_pool.py`).
_COMPRESSED_ROTARY = 64


@dataclass(frozen=True, slots=True)
class Cells:
    """What a rank's cache takes.

    Attributes
    ----------
    full
        Bytes of a token over all layers that keep every token (or one entry for several).
    window
        Bytes of a token over the layers with a pool of their own; 0 if there is none.
    reach
        Tokens that such a layer sees.
    state
        Bytes of one sequence's states.
    keys
        Part of `full` and of `window` that are keys, as the log prints it.
    full_layers
        Layers behind `full`.
    """

    full: int
    window: int
    reach: int
    state: int
    keys: tuple[int, int]
    full_layers: int = 0

    def with_layers(self, count: int) -> Cells:
        """The same with so many full layers more, each like the others (the cache of a draft)."""
        if not count or not self.full_layers:
            return self
        keys = self.keys[0] * count // self.full_layers
        return replace(
            self,
            full=self.full + self.full * count // self.full_layers,
            keys=(self.keys[0] + keys, self.keys[1]),
            full_layers=self.full_layers + count,
        )


def kv_dtype_of(subject: Subject, settings: Settings, dtype: str, device: Device, era: Era) -> str:
    """What `kv_cache_dtype` means.

    `auto` is the model's dtype, 8 bits where a ModelOpt checkpoint says so, and 8 bits for sparse latent attention on
    Blackwell servers (`arg_groups/overrides.py: _dsa_kv_cache_dtype_default`).

    Raises
    ------
    BadInput
        If SGLang knows no such dtype.
    """
    asked = settings.kv_cache_dtype
    if asked in ("fp8", "fp16", "float16"):
        asked = "fp8_e4m3" if asked == "fp8" else "bfloat16"
    if asked not in _KV_DTYPES:
        raise BadInput(f"SGLang has no kv_cache_dtype {asked!r}", f"known: {', '.join(_KV_DTYPES)}")
    if asked in (*_FP4, "mxfp8"):
        return asked
    if asked != "auto":
        return dtype_name(asked)
    sparse = any(
        isinstance(mixer, LatentAttention) and mixer.index_dim for mixer in _mixers(subject.architecture)
    )
    major = device.compute_capability.split(".")[0]
    if sparse and major.isdigit() and int(major) >= 10:
        return "fp8_e4m3"
    stored = subject.recipe.kv_cache_dtype
    modelopt = subject.recipe.method.startswith("modelopt")
    return stored if stored is not None and era.checkpoint_kv and modelopt else dtype


def scaled_bytes(elements: int, kv_dtype: str) -> int:
    """Bytes of a token's elements, scales included."""
    if kv_dtype in _FP4:
        return elements // 2 + elements // _FP4_BLOCK
    if kv_dtype == "mxfp8":
        return elements + elements // _MXFP8_BLOCK
    return elements * DTYPE_BYTES[kv_dtype]


def cells_of(architecture: Architecture, settings: Settings, kv_dtype: str, dtype: str, era: Era) -> Cells:
    """What the fullest stage keeps for a token, and for a sequence."""
    windows = era.windows or frozenset()
    pooled = architecture.model_type in windows and not settings.disable_hybrid_swa_memory
    full = window = reach = state = full_keys = window_keys = full_layers = 0
    for layer in _layers(architecture, settings):
        for mixer in layer.mixers:
            size, keys = _token_bytes(mixer, settings, kv_dtype)
            seen = getattr(mixer, "window", 0) or getattr(mixer, "chunk", 0)
            if isinstance(mixer, CompressedAttention):
                window, reach = window + _compressed_entry(mixer), mixer.window
                full, full_keys = full + size, full_keys + keys
            elif pooled and seen:
                window, reach, window_keys = window + size, max(reach, seen), window_keys + keys
            else:
                full, full_keys = full + size, full_keys + keys
                full_layers += bool(size)
            state += _state_bytes(mixer, settings, dtype)
    if not full:
        # Where all layers have windows there is one pool.
        return Cells(window, 0, 0, state, (window_keys, 0))
    return Cells(full, window, reach, state, (full_keys, window_keys), full_layers)


def _layers(architecture: Architecture, settings: Settings) -> Iterator[Layer]:
    """Layers of the stage with most of them."""
    layers = architecture.layers
    if settings.pp_size > 1:
        layers = layers[-max(pipeline_stages(len(layers), settings.pp_size)) :]
    yield from layers


def _token_bytes(mixer: Mixer, settings: Settings, kv_dtype: str) -> tuple[int, int]:
    """(bytes, of these for keys) of one token in one layer.

    Layers that read another layer's cache have their own buffers all the same.
    """
    ranks = settings.attention_ranks
    if isinstance(mixer, LatentAttention):
        size = _latent_bytes(mixer, kv_dtype)
        index = mixer.index_dim + 4 * (mixer.index_dim // _SPARSE_BLOCK)
        return size + ceil_div(index, mixer.index_pool), size
    if isinstance(mixer, CompressedAttention):
        if not mixer.ratio or not mixer.keeps_entries:
            return 0, 0
        index = mixer.index_dim + 4 * (mixer.index_dim // _SPARSE_BLOCK)
        size = ceil_div(_compressed_entry(mixer) + index, mixer.ratio)
        return size, size
    if isinstance(mixer, CrossAttention):
        heads = max(1, mixer.kv_heads // ranks)
        size = scaled_bytes(heads * mixer.head_dim, kv_dtype)
        return 2 * size, size
    if isinstance(mixer, Attention | IndexedAttention):
        if isinstance(mixer, Attention) and not mixer.keeps_cache:
            return 0, 0
        heads = max(1, mixer.kv_heads // ranks)
        keys = scaled_bytes(heads * mixer.head_dim, kv_dtype)
        index = mixer.index_dim * (1 if kv_dtype.startswith("fp8") else 2)
        return keys + scaled_bytes(heads * mixer.value_dim, kv_dtype) + index, keys
    return 0, 0


def _latent_bytes(latent: LatentAttention, kv_dtype: str) -> int:
    """Sparse kernels pack an 8-bit latent with its scales and a 16-bit rotary part."""
    if latent.index_dim and kv_dtype == "fp8_e4m3":
        return latent.kv_rank + 4 * (latent.kv_rank // _SPARSE_BLOCK) + 2 * latent.rope_dim
    return scaled_bytes(latent.latent_per_token, kv_dtype)


def _compressed_entry(mixer: CompressedAttention) -> int:
    latent = mixer.head_dim - _COMPRESSED_ROTARY
    return latent + 2 * _COMPRESSED_ROTARY + latent // 64 + 1


def _state_bytes(mixer: Mixer, settings: Settings, dtype: str) -> int:
    """Bytes of a sequence's state in one layer: convolutions in 16 bits, the recurrence in fp32 if no dtype is set."""
    if isinstance(mixer, CompressedAttention):
        return 0
    size = 0
    for state in mixer.fixed_states:
        elements = state.elements * max(1, ceil_div(state.units, settings.attention_ranks)) // state.units
        asked = dtype_name(settings.mamba_ssm_dtype) if settings.mamba_ssm_dtype else state.dtype or "fp32"
        size += elements * DTYPE_BYTES[dtype if state.name == "conv" else asked]
    return size


def _mixers(architecture: Architecture) -> Iterator[Mixer]:
    for layer, _ in architecture.blocks:
        yield from layer.mixers
