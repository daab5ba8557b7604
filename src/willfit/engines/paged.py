"""A cache in blocks of a fixed number of tokens, with one pool for each size of attention window."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.solving import largest
from willfit.quantities import ceil_div, round_up


@dataclass(frozen=True, slots=True)
class WindowPool:
    """The layers that look back equally far.

    Attributes
    ----------
    window
        Tokens that they keep; 0: all.
    token_bytes
        Bytes of one token in all of them.
    """

    window: int
    token_bytes: int


@dataclass(frozen=True, slots=True)
class PagedCache:
    """How a rank's cache is divided.

    Attributes
    ----------
    pools
        They share the bytes equally.
    block
        Tokens in a block.
    state_bytes
        Fixed state that each sequence holds beside its blocks.
    partial_block
        A started last block is allocated whole, so that the pool is up to a block larger than its budget.
    """

    pools: tuple[WindowPool, ...]
    block: int
    state_bytes: int = 0
    partial_block: bool = False

    def blocks(self, size: int) -> tuple[int, ...]:
        """Blocks of each pool in a cache of `size` bytes."""
        counts = []
        for pool in self.pools:
            tokens = max(0, size) // len(self.pools) // pool.token_bytes
            counts.append(ceil_div(tokens, self.block) if self.partial_block else tokens // self.block)
        return tuple(counts)

    def allocated(self, size: int) -> int:
        """Bytes of these blocks."""
        pairs = zip(self.blocks(size), self.pools, strict=True)
        return sum(count * self.block * pool.token_bytes for count, pool in pairs)

    def tokens(self, size: int) -> int:
        """Tokens that the pool with the farthest look-back holds, beside the state of one sequence."""
        counts = self.blocks(size - self.state_bytes)
        reach = max(range(len(counts)), key=lambda index: self.pools[index].window or float("inf"))
        return counts[reach] * self.block

    def bytes_for(self, length: int, sequences: int = 1) -> int:
        """Bytes that the cache must have for so many sequences; what the neediest pool takes, for each pool."""
        needs = []
        for pool in self.pools:
            kept = min(length, pool.window) if pool.window else length
            needs.append(round_up(kept, self.block) * pool.token_bytes)
        return sequences * (max(needs) * len(needs) + self.state_bytes)

    def longest(self, size: int, limit: int, sequences: int = 1) -> int:
        """The longest sequence of which the cache holds so many, up to `limit` tokens."""
        return largest(lambda length: self.bytes_for(length, sequences) - size, limit)

    def concurrency(self, size: int, length: int) -> float:
        """How many sequences of a length the cache holds."""
        return max(0, size) / self.bytes_for(length)
