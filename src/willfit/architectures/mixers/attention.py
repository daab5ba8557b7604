"""Softmax attention with per-head keys and values: full, sliding, chunked, shared, cross.

MHA, GQA and MQA differ only in `kv_heads`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from willfit.architectures.mixers.base import FixedState
from willfit.quantities import at_most, ceil_div


@dataclass(frozen=True, slots=True)
class Attention:
    """Self-attention over the sequence's own tokens.

    Attributes
    ----------
    heads, kv_heads
        Query heads and key/value heads.
    head_dim, value_dim
        Width of a query/key head and of a value head.
    window
        Sliding window in tokens: a token sees itself and the `window - 1` before it. 0: all.
    chunk
        Chunked attention: a token sees only its own chunk of this many tokens. 0: all.
    shares_cache
        The layer reads keys and values that an earlier layer cached, and keeps none itself.
    keeps_cache
        False for an encoder, which sees all tokens at once and keeps nothing.
    value_is_key
        There is no value projection: values are made from the keys' projection (both are still cached,
        because keys are rotated and values are not).
    gated
        A gate as wide as the output is projected beside the queries (Qwen3-Next).
    index_dim, index_pool
        Width of the key that a sparse indexer caches for every `index_pool` tokens; 0 without one.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    window: int = 0
    chunk: int = 0
    shares_cache: bool = False
    keeps_cache: bool = True
    value_is_key: bool = False
    gated: bool = False
    index_dim: int = 0
    index_pool: int = 1

    @property
    def kind(self) -> str:
        """See `Mixer.kind`."""
        if self.shares_cache:
            reach = "shared "
        elif not self.keeps_cache:
            reach = "encoder "
        elif self.window:
            reach = "sliding "
        elif self.chunk:
            reach = "chunked "
        else:
            reach = "full "
        size = f" {self.window or self.chunk}" if self.window or self.chunk else ""
        return f"{reach}attention{size}{' + indexer' if self.index_dim else ''}"

    @property
    def elements_per_token(self) -> int:
        """Key and value elements of one token in one layer."""
        return self.kv_heads * (self.head_dim + self.value_dim)

    def cached_elements(self, tokens: Any, source_tokens: Any = 0) -> Any:
        """See `Mixer.cached_elements`. A window holds its last `window` tokens, a chunk at most its size."""
        if self.shares_cache or not self.keeps_cache:
            return 0 * tokens
        reach = self.window or self.chunk
        index = ceil_div(tokens, self.index_pool) * self.index_dim
        return (at_most(tokens, reach) if reach else tokens) * self.elements_per_token + index

    @property
    def fixed_states(self) -> tuple[FixedState, ...]:
        """See `Mixer.fixed_states`."""
        return ()

    @property
    def projected_width(self) -> int:
        """See `Mixer.projected_width`."""
        gate = self.output_width if self.gated else 0
        return self.heads * self.head_dim + self.elements_per_token + gate

    @property
    def output_width(self) -> int:
        """See `Mixer.output_width`."""
        return self.heads * self.value_dim


@dataclass(frozen=True, slots=True)
class CrossAttention:
    """Attention of a decoder over another encoder's output.

    Attributes
    ----------
    heads, kv_heads, head_dim
        As in `Attention`.
    source_tokens
        Encoder positions if the model fixes them (Whisper: 1500; an image's patches); 0 if the input decides.
    """

    heads: int
    kv_heads: int
    head_dim: int
    source_tokens: int = 0

    @property
    def kind(self) -> str:
        """See `Mixer.kind`."""
        return "cross attention"

    @property
    def elements_per_token(self) -> int:
        """Key and value elements of one source position in one layer."""
        return 2 * self.kv_heads * self.head_dim

    def cached_elements(self, tokens: Any, source_tokens: Any = 0) -> Any:
        """See `Mixer.cached_elements`. Independent of the decoder's own tokens."""
        return 0 * tokens + (self.source_tokens or source_tokens) * self.elements_per_token

    @property
    def fixed_states(self) -> tuple[FixedState, ...]:
        """See `Mixer.fixed_states`."""
        return ()

    @property
    def projected_width(self) -> int:
        """See `Mixer.projected_width`."""
        return self.heads * self.head_dim

    @property
    def output_width(self) -> int:
        """See `Mixer.output_width`."""
        return self.heads * self.head_dim
