"""What one block of vLLM's cache holds for each layer (`v1/kv_cache_interface.py`, 0.33).

A block is `block_size` tokens of an attention layer, or the whole state of one sequence in a state layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import lcm
from typing import Literal

from willfit.architectures.mixers import (
    Attention,
    CompressedAttention,
    CrossAttention,
    IndexedAttention,
    LatentAttention,
    Mixer,
)
from willfit.architectures.model import Architecture, Layer
from willfit.engines.vllm.cache.compressed_pages import compressed_pages
from willfit.engines.vllm.loading.stages import divided, pipeline_stages
from willfit.engines.vllm.settings import Resolved, Settings
from willfit.hardware.device import Device
from willfit.quantities import DTYPE_BYTES, ceil_div, dtype_name, round_up

Kind = Literal["full", "sliding", "chunked", "mla", "indexer", "cross", "state"]

#: Kernels that read a cache of 16 tokens a block, and those that need more (`v1/attention/backends/mla/*.py`).
DEFAULT_BLOCK = 16
FLASHMLA_BLOCK = 64
CUTLASS_MLA_BLOCK = 128
#: FlashAttention's kernel for heads of 512 that reads an 8-bit cache on Hopper, and its kernel for heads of 256
#: on Blackwell servers (`v1/attention/backends/flash_attn.py`).
FLASH_FP8_512_BLOCK = 64
FLASH_256_BLOCK = 128
#: Sparse attention to whole blocks that an indexer chooses (`models/minimax_m3/common/sparse_attention.py`).
SPARSE_BLOCK = 128

#: Models with latent attention that keep keys and values of all heads, as wide as a query (`models/minicpm3.py`).
_EXPANDED = frozenset({"minicpm3"})

#: Models whose scores are soft-capped or whose images are attended both ways: other kernels run them.
_NOT_FLASH_256 = frozenset({"gemma2", "gemma3", "gemma3n", "gemma4"})

#: Dtype of the recurrent state where neither settings nor config name one, by kind of layer and by model type
#: (`layers/mamba/mamba_utils.py: kda_state_dtype`, `models/config.py: NemotronHForCausalLMConfig`).
_STATE_DTYPES = {"kimi delta": "fp32", "nemotron_h": "fp32"}

_DELTA = "gated delta"


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
    stage
        Pipeline stage of the layer; layers that differ in nothing else are alike.
    """

    kind: Kind
    block_size: int
    page_bytes: int
    reach: int = 0
    state_blocks: int = 0
    stage: int = field(default=0, compare=False)

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

    def kept_whole(self) -> CacheSpec:
        """The same layer where it keeps all tokens of a sequence."""
        return replace(self, kind="full", reach=0)

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
        # Decode context ranks hold a share of the tokens each.
        return ceil_div(ceil_div(length, resolved.context_shards), self.block_size)

    def planned_blocks(self, length: int, resolved: Resolved) -> int:
        """Blocks that vLLM counts for one sequence, which for cross-attention may be those of a whole batch."""
        if self.kind == "cross" and resolved.era.plans_source_by_batch:
            return ceil_div(resolved.max_num_batched_tokens, self.block_size)
        return self.blocks_per_request(length, resolved)


def kv_dtype_of(
    settings: Settings,
    checkpoint_kv_dtype: str | None,
    model_dtype: str,
    architecture: Architecture,
    device: Device,
) -> str:
    """What `kv_cache_dtype` means: `auto` is the checkpoint's own scheme if it has one, else the model's dtype.

    DeepSeek-V4's kernels read their own layout of 8 bits. Layouts with a name of their own (`fp8_ds_mla`,
    `int8_per_token_head`, `nvfp4`, ...) are returned as they are. GLM-5 defaults to 8 bits on Blackwell servers
    (`models/config.py: GlmMoeDsaForCausalLM`).
    """
    asked = settings.kv_cache_dtype
    if is_compressed(architecture) and asked.startswith(("auto", "fp8")):
        return "fp8_ds_mla"
    if asked == "auto" and checkpoint_kv_dtype is None:
        return (
            "fp8_e4m3"
            if architecture.model_type == "glm_moe_dsa" and _generation(device) == 10
            else model_dtype
        )
    if asked == "auto":
        return checkpoint_kv_dtype or model_dtype
    sparse = any(isinstance(mixer, LatentAttention) and mixer.index_dim for mixer in _mixers(architecture))
    if asked == "fp8" and sparse and _generation(device) != 10:
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
    """Tokens in a block before state layers are considered (`platforms/interface.py`).

    The kernels are those of vLLM's own wheels; an installed FlashInfer takes smaller blocks on Blackwell.
    """
    if settings.block_size:
        return settings.block_size
    latents = [mixer for mixer in _mixers(architecture) if isinstance(mixer, LatentAttention)]
    if any(isinstance(mixer, IndexedAttention) for mixer in _mixers(architecture)):
        return SPARSE_BLOCK
    if architecture.model_type in _EXPANDED:
        return DEFAULT_BLOCK
    quantized = DTYPE_BYTES.get(kv_dtype, 1) == 1
    generation = _generation(device)
    if not latents:
        widths = {mixer.head_dim for mixer in _mixers(architecture) if isinstance(mixer, Attention)}
        if generation == 9 and quantized and 512 in widths:
            return FLASH_FP8_512_BLOCK
        flash_256 = widths == {256} and architecture.model_type not in _NOT_FLASH_256
        return FLASH_256_BLOCK if generation == 10 and flash_256 and not quantized else DEFAULT_BLOCK
    if any(latent.index_dim for latent in latents):
        return FLASHMLA_BLOCK
    if generation == 10:
        return CUTLASS_MLA_BLOCK
    return FLASHMLA_BLOCK if quantized and generation == 9 else DEFAULT_BLOCK


def _generation(device: Device) -> int:
    """Major compute capability; 0 if it is not known."""
    major = device.compute_capability.split(".")[0]
    return int(major) if major.isdigit() else 0


@dataclass(frozen=True, slots=True)
class _Rank:
    """What all layers of one rank have in common."""

    block: int
    ranks: int
    kv_dtype: str
    model_dtype: str
    state_dtype: str
    default_state_dtype: str
    state_length: int
    state_blocks: int
    checkpointed: frozenset[str]
    encoders: bool
    expands: bool

    def heads(self, kv_heads: int) -> int:
        """KV heads on a rank: with more ranks than heads each holds one."""
        return max(1, ceil_div(kv_heads, self.ranks))


def cache_specs(
    architecture: Architecture,
    settings: Settings,
    resolved: Resolved,
    kv_dtype: str,
    model_dtype: str,
    device: Device,
) -> list[CacheSpec]:
    """One spec per layer and cache, in layer order; layers that keep nothing have none."""
    caching = _caches_states(architecture, settings, resolved)
    checkpointed = (
        _checkpointed(architecture, device) if caching and resolved.era.checkpoint_blocks else frozenset()
    )
    asked = settings.mamba_ssm_cache_dtype
    rank = _Rank(
        block=block_size_for(architecture, settings, kv_dtype, device),
        ranks=settings.tensor_parallel,
        kv_dtype=kv_dtype,
        model_dtype=model_dtype,
        state_dtype="" if asked == "auto" else dtype_name(asked),
        default_state_dtype=_STATE_DTYPES.get(architecture.model_type, model_dtype),
        state_length=resolved.max_model_len,
        # With prefix caching ("align" mode): the running state and the one before it.
        state_blocks=(2 if caching else 1) + settings.speculative_tokens,
        checkpointed=checkpointed,
        # V0 gives encoders a cache that they never read (`worker/cache_engine.py`).
        encoders=resolved.era.generation == "v0",
        expands=architecture.model_type in _EXPANDED,
    )
    stages = settings.pipeline_parallel
    parts = divided(architecture.layers, pipeline_stages(len(architecture.layers), stages))
    if settings.mtp:
        parts[-1] = (*parts[-1], *architecture.mtp_layers)
    mixers = {id(mixer): mixer for part in parts for layer in part for mixer in layer.mixers}
    specs = _on_stages(parts, {key: _kept_by(mixer, rank, kv_dtype) for key, mixer in mixers.items()})
    # Gated-delta kernels hand over their state every 64 tokens.
    kinds = {mixer.kind for mixer in _mixers(architecture) if mixer.fixed_states}
    return _align_states(specs, 64 if kinds == {_DELTA} and kinds <= checkpointed else 1)


def _kept_by(mixer: Mixer, rank: _Rank, kv_dtype: str) -> list[CacheSpec]:
    if isinstance(mixer, CompressedAttention):
        return [CacheSpec(*page) for page in compressed_pages(mixer, kv_dtype)]
    return _specs_of(mixer, rank)


def _on_stages(parts: Sequence[Sequence[Layer]], kept: dict[int, list[CacheSpec]]) -> list[CacheSpec]:
    """What all layers keep, those of each pipeline stage with its number; like layers share their specs."""
    specs: list[CacheSpec] = []
    for stage, part in enumerate(parts):
        here = (
            {key: [replace(spec, stage=stage) for spec in own] for key, own in kept.items()}
            if stage
            else kept
        )
        for layer in part:
            for mixer in layer.mixers:
                specs += here[id(mixer)]
    return specs


def _caches_states(architecture: Architecture, settings: Settings, resolved: Resolved) -> bool:
    """Whether states are kept for prefix caching; models of state layers alone never do."""
    if all(mixer.fixed_states for mixer in _mixers(architecture)):
        return False
    asked = settings.enable_prefix_caching
    return resolved.era.state_caching if asked is None else asked


def _checkpointed(architecture: Architecture, device: Device) -> frozenset[str]:
    """Kinds of layers that export a state from inside a prefill, which takes one more block.

    Mamba-2 always does, Qwen's gated delta rule with FlashInfer's kernels, which exist for Hopper and Blackwell
    (`layers/mamba/mamba_mixer2.py`, `layers/mamba/gdn/qwen_gdn_linear_attn.py: _resolve_gdn_prefill_backend`).
    """
    flashinfer = device.compute_capability == "9.0" or _generation(device) in (10, 12)
    delta = flashinfer and architecture.model_type.startswith("qwen")
    return frozenset({"mamba2", _DELTA} if delta else {"mamba2"})


def _specs_of(mixer: Mixer, rank: _Rank) -> list[CacheSpec]:
    block = rank.block
    if isinstance(mixer, LatentAttention) and rank.expands:
        width = mixer.nope_dim + mixer.rope_dim
        size = attention_bytes_per_token(rank.heads(mixer.heads), width, width, rank.kv_dtype)
        return [CacheSpec("full", block, block * size)]
    if isinstance(mixer, LatentAttention):
        # The latent is the same for all heads, so every rank holds all of it.
        specs = []
        if mixer.index_dim:
            keys = ceil_div(block, mixer.index_pool)
            specs.append(CacheSpec("indexer", block, keys * index_bytes_per_token(mixer)))
        return [*specs, CacheSpec("mla", block, block * latent_bytes_per_token(mixer, rank.kv_dtype))]
    if isinstance(mixer, IndexedAttention):
        size = attention_bytes_per_token(
            rank.heads(mixer.kv_heads), mixer.head_dim, mixer.value_dim, rank.kv_dtype
        )
        # Every rank holds the one index key, in 16 bits.
        index = block * mixer.index_dim * DTYPE_BYTES["bf16"]
        return [CacheSpec("full", block, block * size), CacheSpec("indexer", block, index)]
    if isinstance(mixer, CrossAttention):
        heads = rank.heads(mixer.kv_heads)
        size = attention_bytes_per_token(heads, mixer.head_dim, mixer.head_dim, rank.kv_dtype)
        return [CacheSpec("cross", block, block * size, mixer.source_tokens)]
    if isinstance(mixer, Attention):
        if mixer.shares_cache or not (mixer.keeps_cache or rank.encoders):
            return []
        heads = rank.heads(mixer.kv_heads)
        size = attention_bytes_per_token(heads, mixer.head_dim, mixer.value_dim, rank.kv_dtype)
        kind: Kind = "sliding" if mixer.window else "chunked" if mixer.chunk else "full"
        kept = [CacheSpec(kind, block, block * size, mixer.window or mixer.chunk)]
        if mixer.index_dim:
            # One 16-bit key for several tokens, on every rank (`models/qwen4_exp/common/qsa_cache.py`).
            pooled = ceil_div(block, mixer.index_pool) * mixer.index_dim * DTYPE_BYTES["bf16"]
            kept.append(CacheSpec("indexer", block, pooled))
        return kept
    if not mixer.fixed_states:
        return []
    blocks = rank.state_blocks + (mixer.kind in rank.checkpointed)
    return [CacheSpec("state", rank.state_length, _state_bytes(mixer, rank), state_blocks=blocks)]


def _state_bytes(mixer: Mixer, rank: _Rank) -> int:
    """Bytes of a sequence's state in one layer: convolutions in the model's dtype, the recurrence in its own."""
    default = _STATE_DTYPES.get(mixer.kind, rank.default_state_dtype)
    size = 0
    for state in mixer.fixed_states:
        elements = state.elements * max(1, ceil_div(state.units, rank.ranks)) // state.units
        recurrent = rank.state_dtype or state.dtype or default
        size += elements * DTYPE_BYTES[rank.model_dtype if state.name == "conv" else recurrent]
    return size


def _align_states(specs: list[CacheSpec], multiple: int) -> list[CacheSpec]:
    """Grow attention blocks until their page covers a state page, and pad the states to it.

    `platforms/interface.py: _align_hybrid_block_size`; blocks are multiples of `multiple` tokens.
    """
    states = [spec for spec in specs if spec.kind == "state"]
    attention = [spec for spec in specs if spec.is_attention]
    if not states or not attention:
        return specs
    largest = max(spec.page_bytes for spec in states)
    block = attention[0].block_size
    align = max(block, 128) if any(spec.kind == "mla" for spec in attention) else block
    align = lcm(align, multiple)
    per_token = max(spec.bytes_per_token for spec in attention)
    needed = align * ceil_div(largest, align * per_token)
    block = round_up(max(block, needed), block)
    page = block * per_token
    grown = {
        id(spec): replace(spec, block_size=block, page_bytes=page)
        if spec.kind == "state"
        else spec.with_block(block)
        for spec in specs
    }
    return [grown[id(spec)] for spec in specs]


def is_compressed(architecture: Architecture) -> bool:
    """Whether layers attend to compressed entries and windows (DeepSeek-V4)."""
    return any(isinstance(mixer, CompressedAttention) for mixer in _mixers(architecture))


def _mixers(architecture: Architecture) -> list[Mixer]:
    return [mixer for layer, _ in architecture.blocks for mixer in layer.mixers]
