"""What torch's allocator keeps reserved beyond what is allocated at the fullest instant.

A freed block stays with the allocator until the device is full (`c10/cuda/CUDACachingAllocator.cpp`): another tensor
gets it if it is of the same stream and not larger, and the best fit is split. So a large block that a smaller tensor
was cut out of is no longer whole when the next tensor of its size comes, and another segment is made. How many are
made depends on what a user decides, in this order:

- the cache is emptied every few steps (`torch_empty_cache_steps`), or segments grow as they are needed
  (`expandable_segments`): what is left are holes in all that comes and goes;
- batches differ in length: each that is longer than those before needs new blocks for whatever is as large as a batch,
  logits before all else, and leaves the old ones behind;
- states are shared between ranks: gathered weights and reduced gradients are allocated on streams of their own
  (`torch/distributed/fsdp/_fully_shard/_fsdp_collectives.py`), whose blocks other streams never get;
- else each step asks for the same sizes, and blocks that layers cut up are made about once more.

How much that comes to is fitted, by these classes. As a request that finds no room is tried again after all wholly free
segments were given back (`release_cached_blocks`), nothing is reserved beyond the device, and on one that becomes full
less may be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.calibration import Constant, constant
from willfit.training.account import Account
from willfit.training.run import Run
from willfit.training.timeline import OPTIMIZER_STEP

#: Beginnings of the names of what shares states between ranks (`LayoutSettings.data`).
_SHARING = ("fsdp", "zero", "distributed")

#: Which class answers where no case shows one.
_INSTEAD = {
    "emptied": "expandable", "expandable": "sharded", "sharded": "expandable", "steady": "varied", "varied": "steady",
}  # fmt: skip

#: A class that fewer cases show may lie where its neighbour does as well.
_FEW = 10


def class_of(run: Run, ranks: int) -> str:
    """The class of a run: `emptied`, `expandable`, `varied`, `sharded` or `steady`.

    Parameters
    ----------
    ranks
        Over which states are shared.
    """
    settings = run.settings
    if settings.empties_cache:
        return "emptied"
    if settings.expandable_segments:
        return "expandable"
    if settings.varied_lengths:
        return "varied"
    shares = ranks > 1 and (settings.layout.data or "").startswith(_SHARING)
    return "sharded" if shares else "steady"


def spread_of(kind: str) -> Constant:
    """The share of `Cached.extra` that a class keeps, with its interval."""
    instead = f"training.cached.{_INSTEAD[kind]}"
    found = constant(f"training.cached.{kind}", instead)
    if found.cases >= _FEW:
        return found
    other = constant(instead)
    return replace(found, low=min(found.low, other.low), high=max(found.high, other.high))


@dataclass(frozen=True, slots=True)
class Cached:
    """What a class's share is a share of.

    Attributes
    ----------
    beside
        Bytes that are allocated when the cache fills: at the fullest instant, or at that of the passes through the
        model, if what passes there decides. The optimizer's temporaries are as large as parameters and find room in
        what the passes left.
    extra
        Bytes that the allocator may keep once more.
    """

    beside: int
    extra: int


def cached(account: Account, kind: str) -> Cached:
    """What fills the cache of a run of this class.

    Where lengths or splits decide, that is what head and loss keep and pass, logits, their logarithms and gradients;
    where streams or holes do, all that comes and goes.
    """
    if kind not in ("varied", "steady"):
        return Cached(account.peak, account.worst.bytes)
    passes = [instant for instant in account.instants if instant.name != OPTIMIZER_STEP]
    # A pipeline stage without a head passes its layers' own values.
    heads = [instant for instant in passes if instant.head] or passes
    return Cached(
        account.resident + max(instant.bytes for instant in passes),
        max(instant.passing + instant.kept - instant.below for instant in heads),
    )


def reserved(
    peak: int, least: int, holes: int, filled: Cached, spread: Constant, room: tuple[int, int] | None
) -> tuple[int, int, int]:
    """What is reserved at most during a run: the size, and its interval.

    Parameters
    ----------
    peak, least
        Bytes that are allocated at the fullest instant, and the least that they may be.
    holes
        Bytes of holes that there may be in any case.
    filled, spread
        See `cached` and `spread_of`.
    room
        What the device has for segments: as it usually is, and the most. None if the device is not known.
    """
    beside, extra = filled.beside, filled.extra
    size, low, high = (beside + int(extra * share) for share in (spread.value, spread.low, spread.high))
    if beside < peak:
        # The optimizer's step is fuller: it finds room in what the passes left, or none of it.
        size, low, high = max(size, peak), max(low, least), high + peak - beside
    high = max(high, peak + holes)
    if room is None or high <= room[0]:
        return size, low, high
    if peak > room[1]:
        # It does not fit, so that nothing is given back in time: this is what it would take of a larger device.
        return size, low, high
    # The device becomes full, and what was cached until then is given back.
    return max(min(size, room[0]), peak), min(low, least), max(room[1], peak)
