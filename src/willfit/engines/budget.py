"""An engine that takes a share of a device and gives what is left of it to a cache: all that decides, as plain numbers.

Everything here is the same for devices that differ in their memory only, so that a planner works it out once and asks
about many of them at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from willfit.estimate import Term


@dataclass(frozen=True, slots=True)
class Sum:
    """Terms added up.

    Attributes
    ----------
    bytes
        Of all.
    below, above
        The squares of how far each interval reaches to either side, added up (`estimate.combined`).
    """

    bytes: int
    below: float
    above: float


@dataclass(frozen=True, slots=True)
class Runs:
    """How an engine computes, as far as it decides the time.

    Attributes
    ----------
    dtype, kv_dtype
        Of what is not quantized, and of the cache; empty for the checkpoint's.
    chunk
        Tokens of a prompt that are run at once; 0 for what the engine does.
    graphs
        CUDA graphs are captured.
    pipelined
        Stages work on different sequences at once, and not one after the other.
    """

    dtype: str = ""
    kv_dtype: str = ""
    chunk: int = 0
    graphs: bool = True
    pipelined: bool = True


@dataclass(frozen=True, slots=True)
class Budget:
    """What an engine takes of a device whatever its size.

    Attributes
    ----------
    share
        Of usable memory, that it allows itself.
    inside, outside
        What counts against that, and what comes on top.
    spreads
        By what shares of the budget less and more of it may be seen than the device's memory says.
    block_bytes
        Of a block of the cache; 0 without a cache.
    sequence_bytes
        What a sequence of the length that is asked for needs of it.
    least_bytes
        What must be there for one, however few run.
    kept_bytes
        What no sequence can use.
    most_sequences
        So many run at once at most, whatever the cache.
    runs
        How it computes.
    refusal
        Why the engine would not start; empty otherwise.
    host_bytes
        What the host holds at the peak.
    """

    share: float
    inside: Sum
    outside: Sum
    spreads: tuple[tuple[float, float], ...]
    block_bytes: int
    sequence_bytes: int
    least_bytes: int
    kept_bytes: int
    most_sequences: int
    runs: Runs
    refusal: str = ""
    host_bytes: int = 0

    def needed_bytes(self, sequences: int) -> int:
        """What sequences need of the cache."""
        return max(self.sequence_bytes * sequences, self.least_bytes) + self.kept_bytes


def summed(terms: Iterable[Term]) -> Sum:
    """Terms added up."""
    total, below, above = 0, 0.0, 0.0
    for term in terms:
        total += term.bytes
        below += float(term.bytes - term.low_bytes) ** 2
        above += float(term.high_bytes - term.bytes) ** 2
    return Sum(total, below, above)
