"""Compressed sparse attention: a short window of tokens, and before it one entry for several tokens.

DeepSeek-V4 report, section 2.3: one key of `head_dim` elements serves all heads and is its own value. The
window holds the last tokens; a compressor makes one entry from `ratio` tokens and, where an indexer chooses
among the entries, one index key for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from willfit.architectures.mixers.base import FixedState
from willfit.quantities import at_most


@dataclass(frozen=True, slots=True)
class CompressedAttention:
    """Attention to a sliding window and to compressed entries.

    Attributes
    ----------
    heads, head_dim
        Query heads, and the width of a query and of the one shared key, which is also the value.
    window
        Sliding window in tokens.
    query_rank
        Width of the compressed query.
    ratio
        Tokens for one compressed entry; 0: the window is all that the layer sees.
    overlaps
        An entry is made from its own tokens and those of the entry before it, each with half of the channels.
    index_heads, index_dim
        Heads and width of the indexer; 0 without one. The index keys are compressed like the entries.
    keeps_entries
        False if the layer reads the entries and index keys of an earlier layer.
    """

    heads: int
    head_dim: int
    window: int
    query_rank: int
    ratio: int = 0
    overlaps: bool = False
    index_heads: int = 0
    index_dim: int = 0
    keeps_entries: bool = True

    @property
    def kind(self) -> str:
        """See `Mixer.kind`."""
        if not self.ratio:
            return f"sliding attention {self.window}"
        reach = f"{'' if self.keeps_entries else 'shared '}compressed attention {self.ratio}"
        return f"{reach} + indexer" if self.index_heads else reach

    @property
    def kv_heads(self) -> int:
        """The one key that all heads share: every tensor-parallel rank holds it."""
        return 1

    def cached_elements(self, tokens: Any, source_tokens: Any = 0) -> Any:
        """See `Mixer.cached_elements`."""
        windowed = at_most(tokens, self.window) * self.head_dim
        if not self.ratio or not self.keeps_entries:
            return windowed
        return windowed + tokens // self.ratio * (self.head_dim + self.index_dim)

    @property
    def fixed_states(self) -> tuple[FixedState, ...]:
        """See `Mixer.fixed_states`: projections and scores of the tokens of the entry under construction."""
        if self.ratio < 2 or not self.keeps_entries:
            return ()
        spans = 2 if self.overlaps else 1
        widths = self.head_dim + (self.index_dim if self.overlaps else 0)
        return (FixedState("recurrent", spans * self.ratio * spans * widths * 2),)

    @property
    def projected_width(self) -> int:
        """See `Mixer.projected_width`."""
        return self.query_rank + self.heads * self.head_dim + self.head_dim

    @property
    def output_width(self) -> int:
        """See `Mixer.output_width`."""
        return self.heads * self.head_dim
