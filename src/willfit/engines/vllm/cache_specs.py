"""What one block of vLLM's cache holds for each layer (`v1/kv_cache_interface.py`, 0.33).

A block is `block_size` tokens of an attention layer, or the whole state of one sequence in a state layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lcm
from typing import Literal

from willfit.architectures.mixers import Attention, CrossAttention, LatentAttention, Mixer
from willfit.architectures.model import Architecture
from willfit.engines.vllm.settings import Resolved, Settings
from willfit.hardware.device import Device
from willfit.quantities import DTYPE_BYTES, ceil_div, dtype_name, round_up

Kind = Literal["full", "sliding", "chunked", "mla", "indexer", "cross", "state"]

#: Kernels that read a cache of 16 tokens a block, and those that need more (`v1/attention/backends/mla/*.py`).
DEFAULT_BLOCK = 16
FLASHMLA_BLOCK = 64
CUTLASS_MLA_BLOCK = 128


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """The cache of one layer on one rank.

    Attributes
    ----------
    kind
        What the layer keeps.
    block_size
        Tokens in a block.
    page_bytes
        Bytes of a block in this layer.
    reach
        Window or chunk in tokens; source positions of cross-attention; 0 otherwise.
    state_blocks
        Blocks that a sequence needs in a state layer.
    """

    kind: Kind
    block_size: int
    page_bytes: int
    reach: int = 0
    state_blocks: int = 0

    @property
    def is_attention(self) -> bool:
        """Whether the page grows with the block size."""
        return self.kind != "state"

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one token in this layer."""
        return self.page_bytes // self.block_size

    def with_block(self, block_size: int) -> CacheSpec:
        """The same layer with another block size."""
        return replace(self, block_size=block_size, page_bytes=self.bytes_per_token * block_size)

    def blocks_per_request(self, length: int, resolved: Resolved) -> int:
        """Blocks that one sequence of `length` tokens holds at most.

        Window and chunk layers also hold the tokens in flight; a window may begin inside a block, hence one more.
        """
        if self.kind == "state":
            return self.state_blocks
        if self.kind == "sliding":
            held = min(self.reach - 1 + resolved.max_in_flight_tokens, length)
            return ceil_div(held, self.block_size) + 1
        if self.kind == "chunked":
            return ceil_div(min(self.reach + resolved.max_in_flight_tokens, length), self.block_size)
        if self.kind == "cross":
            return ceil_div(self.reach, self.block_size)
        return ceil_div(length, self.block_size)


def kv_dtype_of(
    settings: Settings,
    checkpoint_kv_dtype: str | None,
    model_dtype: str,
    architecture: Architecture,
    device: Device,
) -> str:
    """What `kv_cache_dtype` means: `auto` is the checkpoint's own scheme if it has one, else the model's dtype.

    Layouts with a name of their own (`fp8_ds_mla`, `int8_per_token_head`, `nvfp4`, ...) are returned as they are.
    """
    asked = settings.kv_cache_dtype
    if asked == "auto":
        return checkpoint_kv_dtype or model_dtype
    sparse = any(isinstance(mixer, LatentAttention) and mixer.index_dim for mixer in _mixers(architecture))
    if asked == "fp8" and sparse and not device.compute_capability.startswith("10."):
        # Sparse MLA kernels read 8 bits only in their own layout, but for FlashInfer's on Blackwell servers.
        return "fp8_ds_mla"
    if asked.endswith(("_per_token_head", "_ds_mla")) or asked == "nvfp4":
        return asked
    return dtype_name(asked)


def attention_bytes_per_token(kv_heads: int, key_dim: int, value_dim: int, kv_dtype: str) -> int:
    """Bytes of a token's keys and values in one layer, scales of the quantized layouts included."""
    width = key_dim + value_dim
    if kv_dtype in ("int8_per_token_head", "fp8_per_token_head"):
        return kv_heads * (width + 8)
    if kv_dtype == "int4_per_token_head":
        return kv_heads * (width // 2 + 8)
    if kv_dtype == "nvfp4":
        return kv_heads * (width // 2 + width // 16)
    return kv_heads * width * DTYPE_BYTES[kv_dtype]


def latent_bytes_per_token(latent: LatentAttention, kv_dtype: str) -> int:
    """Bytes of a token's latent in one layer; the `ds_mla` layouts pack latent, scales and a 16-bit rotary part."""
    if kv_dtype == "fp8_ds_mla":
        return latent.kv_rank + 4 * (latent.kv_rank // 128) + 2 * latent.rope_dim
    if kv_dtype == "nvfp4_ds_mla":
        return latent.kv_rank // 2 + latent.kv_rank // 16 + latent.rope_dim
    return latent.latent_per_token * DTYPE_BYTES[kv_dtype]


def index_bytes_per_token(latent: LatentAttention) -> int:
    """Bytes of a token's fp8 index key with one fp32 scale for 128 elements."""
    return latent.index_dim + 4 * ceil_div(latent.index_dim, 128)


def block_size_for(architecture: Architecture, settings: Settings, kv_dtype: str, device: Device) -> int:
    """Tokens in a block before state layers are considered (`platforms/interface.py`)."""
    if settings.block_size:
        return settings.block_size
    latents = [mixer for mixer in _mixers(architecture) if isinstance(mixer, LatentAttention)]
    if not latents:
        return DEFAULT_BLOCK
    if any(latent.index_dim for latent in latents):
        return FLASHMLA_BLOCK
    if device.compute_capability.startswith("10."):
        return CUTLASS_MLA_BLOCK
    quantized = DTYPE_BYTES.get(kv_dtype, 1) == 1
    return FLASHMLA_BLOCK if quantized and device.compute_capability.startswith("9.") else DEFAULT_BLOCK


def cache_specs(
    architecture: Architecture,
    settings: Settings,
    resolved: Resolved,
    kv_dtype: str,
    model_dtype: str,
    device: Device,
) -> list[CacheSpec]:
    """One spec per layer and cache, in layer order; layers that keep nothing have none."""
    ranks = settings.tensor_parallel
    block = block_size_for(architecture, settings, kv_dtype, device)
    # Models of state layers alone do not cache prefixes.
    caching = settings.enable_prefix_caching and any(
        not mixer.fixed_states for mixer in _mixers(architecture)
    )
    specs: list[CacheSpec] = []
    layers = (*architecture.layers, *(architecture.mtp_layers if settings.mtp else ()))
    for layer in layers:
        for mixer in layer.mixers:
            specs.extend(_specs_of(mixer, block, ranks, kv_dtype, model_dtype, settings, resolved, caching))
    return _align_states(specs, resolved, architecture, caching)


def _caches_states(architecture: Architecture, settings: Settings, resolved: Resolved) -> bool:
    """Whether states are kept for prefix caching; models of state layers alone never do."""
    if all(mixer.fixed_states for mixer in _mixers(architecture)):
        return False
    asked = settings.enable_prefix_caching
    return resolved.era.state_caching if asked is None else asked


def _specs_of(
    mixer: Mixer,
    block: int,
    ranks: int,
    kv_dtype: str,
    model_dtype: str,
    settings: Settings,
    resolved: Resolved,
    caching: bool,
) -> list[CacheSpec]:
    if isinstance(mixer, LatentAttention):
        # The latent is the same for all heads, so every rank holds all of it.
        specs = []
        if mixer.index_dim:
            specs.append(CacheSpec("indexer", block, block * index_bytes_per_token(mixer)))
        return [*specs, CacheSpec("mla", block, block * latent_bytes_per_token(mixer, kv_dtype))]
    if isinstance(mixer, CrossAttention):
        heads = max(1, ceil_div(mixer.kv_heads, ranks))
        size = attention_bytes_per_token(heads, mixer.head_dim, mixer.head_dim, kv_dtype)
        return [CacheSpec("cross", block, block * size, mixer.source_tokens)]
    if isinstance(mixer, Attention):
        if mixer.shares_cache or not mixer.keeps_cache:
            return []
        heads = max(1, ceil_div(mixer.kv_heads, ranks))
        size = attention_bytes_per_token(heads, mixer.head_dim, mixer.value_dim, kv_dtype)
        kind: Kind = "sliding" if mixer.window else "chunked" if mixer.chunk else "full"
        return [CacheSpec(kind, block, block * size, mixer.window or mixer.chunk)]
    states = mixer.fixed_states
    if not states:
        return []
    size = 0
    for state in states:
        elements = state.elements * max(1, ceil_div(state.units, ranks)) // state.units
        if state.name == "conv":
            dtype = model_dtype
        elif settings.mamba_ssm_cache_dtype != "auto":
            dtype = dtype_name(settings.mamba_ssm_cache_dtype)
        else:
            dtype = state.dtype or model_dtype
        size += elements * DTYPE_BYTES[dtype]
    blocks = 1 + settings.speculative_tokens
    if caching:
        # "align" mode: the running state, the one before it, and one more while a prefill is checkpointed.
        checkpoint = resolved.era.checkpoint_blocks and _checkpointed(mixer.kind)
        blocks = 2 + settings.speculative_tokens + (1 if checkpoint else 0)
    return [CacheSpec("state", resolved.max_model_len, size, state_blocks=blocks)]


def _checkpointed(kind: str) -> bool:
    return kind in ("mamba2", "gated delta")


def _align_states(
    specs: list[CacheSpec], resolved: Resolved, architecture: Architecture, caching: bool
) -> list[CacheSpec]:
    """Grow attention blocks until their page covers a state page, and pad the states to it.

    `platforms/interface.py: _align_hybrid_block_size`.
    """
    states = [spec for spec in specs if spec.kind == "state"]
    attention = [spec for spec in specs if spec.is_attention]
    if not states or not attention:
        return specs
    largest = max(spec.page_bytes for spec in states)
    block = attention[0].block_size
    align = max(block, 128) if any(spec.kind == "mla" for spec in attention) else block
    if caching and resolved.era.checkpoint_blocks and _all_delta(architecture):
        # Gated-delta kernels hand over their state every 64 tokens.
        align = lcm(align, 64)
    per_token = max(spec.bytes_per_token for spec in attention)
    needed = align * ceil_div(largest, align * per_token)
    block = round_up(max(block, needed), block)
    page = block * per_token
    return [
        replace(spec, block_size=block, page_bytes=page) if spec.kind == "state" else spec.with_block(block)
        for spec in specs
    ]


def _all_delta(architecture: Architecture) -> bool:
    kinds = {mixer.kind for mixer in _mixers(architecture) if mixer.fixed_states}
    return kinds == {"gated delta"}


def _mixers(architecture: Architecture) -> list[Mixer]:
    return [mixer for layer, _ in architecture.blocks for mixer in layer.mixers]
