"""Sparse attention behind an indexer: keys and values per head, and one index key per token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from willfit.architectures.mixers.base import FixedState


@dataclass(frozen=True, slots=True)
class IndexedAttention:
    """Grouped-query attention to the keys that an indexer chooses (MiniMax-M3).

    The indexer only chooses: all keys and values stay cached, and beside them an index key per token that
    all index heads share.

    Attributes
    ----------
    heads, kv_heads, head_dim, value_dim
        As in `Attention`.
    index_heads, index_dim
        Query heads of the indexer and width of its keys.
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    index_heads: int
    index_dim: int

    @property
    def kind(self) -> str:
        """See `Mixer.kind`."""
        return "full attention + indexer"

    @property
    def elements_per_token(self) -> int:
        """Key, value and index key elements of one token in one layer."""
        return self.kv_heads * (self.head_dim + self.value_dim) + self.index_dim

    def cached_elements(self, tokens: Any, source_tokens: Any = 0) -> Any:
        """See `Mixer.cached_elements`."""
        return tokens * self.elements_per_token

    @property
    def fixed_states(self) -> tuple[FixedState, ...]:
        """See `Mixer.fixed_states`."""
        return ()

    @property
    def projected_width(self) -> int:
        """See `Mixer.projected_width`."""
        return self.heads * self.head_dim + self.index_heads * self.index_dim + self.elements_per_token

    @property
    def output_width(self) -> int:
        """See `Mixer.output_width`."""
        return self.heads * self.value_dim
