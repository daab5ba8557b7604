"""Multi-head latent attention (MLA): one compressed latent per token instead of keys and values per head.

DeepSeek-V2, section 2.1: the cache holds `kv_lora_rank` latent and `qk_rope_head_dim` rotated elements
per token and layer, whatever the number of heads. With a sparse indexer (DeepSeek-V3.2) each token also
holds one index key of `index_dim` elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from willfit.architectures.mixers.base import FixedState
from willfit.quantities import at_most, ceil_div


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """MLA, with or without a sparse-attention indexer.

    Attributes
    ----------
    heads
        Query heads.
    kv_rank, rope_dim
        Width of the cached latent and of the cached rotated key.
    nope_dim, value_dim
        Per-head width of the unrotated query/key part and of the value, after up-projection.
    query_rank
        Width of the compressed query; 0 if queries are projected directly.
    index_heads, index_dim
        Heads and width of the sparse indexer; 0 without one.
    index_pool
        Tokens whose index keys are pooled into one.
    window
        Sliding window in tokens; 0: all.
    """

    heads: int
    kv_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int
    query_rank: int = 0
    index_heads: int = 0
    index_dim: int = 0
    index_pool: int = 1
    window: int = 0

    @property
    def kind(self) -> str:
        """See `Mixer.kind`."""
        reach = f"sliding mla {self.window}" if self.window else "mla"
        return f"{reach} + indexer" if self.index_dim else reach

    @property
    def latent_per_token(self) -> int:
        """Latent and rotated elements of one token in one layer."""
        return self.kv_rank + self.rope_dim

    def cached_elements(self, tokens: Any, source_tokens: Any = 0) -> Any:
        """See `Mixer.cached_elements`."""
        seen = at_most(tokens, self.window) if self.window else tokens
        return seen * self.latent_per_token + ceil_div(tokens, self.index_pool) * self.index_dim

    @property
    def fixed_states(self) -> tuple[FixedState, ...]:
        """See `Mixer.fixed_states`."""
        return ()

    @property
    def projected_width(self) -> int:
        """See `Mixer.projected_width`."""
        queries = self.heads * (self.nope_dim + self.rope_dim)
        return self.query_rank + queries + self.latent_per_token

    @property
    def output_width(self) -> int:
        """See `Mixer.output_width`."""
        return self.heads * self.value_dim
