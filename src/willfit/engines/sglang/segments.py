"""What the device shows of the parameters: the segments that PyTorch's allocator opens for them.

SGLang logs how much free memory fell while it loaded, and that falls by segments. Layers with fused projections
(`layers/linear.py`, `layers/moe/fused_moe_triton/layer.py`) are single allocations.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from willfit.allocator.sizes import LARGE_SEGMENT, MIN_BLOCK, MIN_LARGE, ROUND_LARGE, SMALL, SMALL_SEGMENT
from willfit.quantities import ceil_div, round_up

#: Projections that are one parameter, by the end of their name.
_FUSED = {
    "q_proj": "qkv",
    "k_proj": "qkv",
    "v_proj": "qkv",
    "gate_proj": "gate_up",
    "up_proj": "gate_up",
    "w1": "gate_up",
    "w3": "gate_up",
    "q_a_proj": "qkv_a",
    "kv_a_proj_with_mqa": "qkv_a",
}


def fused_name(name: str) -> str:
    """Name of the parameter that a tensor becomes a part of: `...self_attn.qkv` for `...self_attn.k_proj.weight`."""
    module = name.rsplit(".", 1)[0]
    parent, _, last = module.rpartition(".")
    return f"{parent}.{_FUSED.get(last, last)}"


def segment_bytes(sizes: Iterable[tuple[int, int]]) -> int:
    """Bytes of the segments that hold tensors of these sizes, allocated one after another and never freed.

    Parameters
    ----------
    sizes
        (bytes, how many of them), in the order of a layer. Layers are taken to alternate: the second of each kind
        comes after the first of all kinds.

    Notes
    -----
    Up to 1 MiB tensors share segments of 2 MiB, below 10 MiB segments of 20 MiB of which the best fitting rest is
    taken, and from 10 MiB on each has a segment of its own, rounded up to 2 MiB.
    """
    small, large, shared = 0, 0, []
    for size, count in sizes:
        block = round_up(size, MIN_BLOCK)
        if block <= SMALL:
            small += block * count
        elif block < MIN_LARGE:
            shared.append((block, count))
        else:
            large += round_up(block, ROUND_LARGE) * count
    return large + round_up(small, SMALL_SEGMENT) + LARGE_SEGMENT * _shared_segments(shared)


def _shared_segments(sizes: list[tuple[int, int]]) -> int:
    """Segments of 20 MiB that tensors of 1 to 10 MiB open."""
    if len(sizes) == 1:
        ((size, count),) = sizes
        return ceil_div(count, LARGE_SEGMENT // size)
    rests: list[int] = []
    opened = 0
    for turn in range(max((count for _, count in sizes), default=0)):
        for size, count in sizes:
            if turn >= count:
                continue
            at = bisect_left(rests, size)
            if at < len(rests):
                rest = rests.pop(at) - size
            else:
                opened, rest = opened + 1, LARGE_SEGMENT - size
            if rest > SMALL:
                insort(rests, rest)
    return opened
