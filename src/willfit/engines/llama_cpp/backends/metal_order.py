"""The order in which Metal computes operations: before each barrier, those further on that can still join.

`ggml-metal-common.cpp: ggml_graph_optimize`. Operations of one kernel stay together in a pack; packs that touch nothing
in common with what runs already are brought forward.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from willfit.engines.llama_cpp.backends.metal_fusion import packed
from willfit.engines.llama_cpp.graph.fusion import closed
from willfit.engines.llama_cpp.graph.tensor import VIEW_OPS, Node

#: Operations across which others are brought forward: at first, and later.
_SAFE_AT_FIRST = VIEW_OPS | frozenset((
    "none", "mul_mat", "mul_mat_id", "rope", "norm", "rms_norm", "group_norm", "sum_rows", "mul", "add", "div", "glu",
    "scale", "get_rows",
))  # fmt: skip
_SAFE = _SAFE_AT_FIRST | frozenset((
    "l2_norm", "ssm_conv", "ssm_scan", "clamp", "tri", "diag", "sub", "unary", "set_rows", "set", "cpy", "cont",
    "repeat",
))  # fmt: skip
#: How far ahead packs are looked at.
_AHEAD_AT_FIRST, _AHEAD = 8, 64
#: In older builds: what a pack begins with, what it is made of, and how long it is at most.
_BEGINS = frozenset(("add", "norm", "rms_norm"))
_CHAINED = _BEGINS | {"mul"}
_LONGEST = 16


def ordered(nodes: Sequence[Node], uses: Mapping[int, int], far: bool, by_kernels: bool) -> list[Node]:
    """The operations of a split in Metal's order.

    Parameters
    ----------
    far
        Packs come from further ahead and across more operations; not so in older builds.
    by_kernels
        Packs are what kernels compute; in older builds, chains of norms, sums and products.
    """
    packs = []
    index = 0
    while index < len(nodes):
        count = packed(nodes, index, uses) if by_kernels else _chained(nodes, index, uses)
        packs.append(_Pack(nodes[index : index + count]))
        index += count
    return [node for pack in _in_order(packs, far) for node in pack.nodes]


def _chained(nodes: Sequence[Node], start: int, uses: Mapping[int, int]) -> int:
    """How many operations from here on each read the one before, and nobody else does (`ggml_can_fuse`)."""
    if nodes[start].op not in _BEGINS:
        return 1
    end = start + 1
    while end < len(nodes) and end < start + _LONGEST and nodes[end].op in _CHAINED:
        end += 1
    for last in range(end, start + 1, -1):
        chain = nodes[start:last]
        if (
            all(
                any(source is before for source in node.src[:2]) and node.ne == before.ne
                for before, node in pairwise(chain)
            )
            and all(uses.get(id(node), 0) == 1 for node in chain[:-1])
            and closed(chain, chain[-1:], uses)
        ):
            return len(chain)
    return 1


@dataclass(slots=True)
class _Pack:
    """Operations that stay together, and whose memory they read and write."""

    nodes: Sequence[Node]
    reads: frozenset[int] = field(init=False)
    writes: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        own = {id(node) for node in self.nodes}
        self.reads = frozenset(
            id(source.view or source) for node in self.nodes for source in node.src if id(source) not in own
        )
        self.writes = frozenset(id(node.view or node) for node in self.nodes)


class _Touched:
    """Memory that packs which run at once read and write."""

    def __init__(self) -> None:
        self._read: set[int] = set()
        self._written: set[int] = set()

    def add(self, pack: _Pack) -> None:
        self._read |= pack.reads
        self._written |= pack.writes

    def is_free_of(self, pack: _Pack) -> bool:
        return (
            self._written.isdisjoint(pack.reads)
            and self._written.isdisjoint(pack.writes)
            and self._read.isdisjoint(pack.writes)
        )


def _in_order(packs: Sequence[_Pack], far: bool) -> Iterator[_Pack]:
    most, safe = (_AHEAD, _SAFE) if far else (_AHEAD_AT_FIRST, _SAFE_AT_FIRST)
    used = [False] * len(packs)
    running = _Touched()
    for index, pack in enumerate(packs):
        if used[index]:
            continue
        if pack.nodes[0].op not in VIEW_OPS and not running.is_free_of(pack):
            waiting = _Touched()
            waiting.add(pack)
            for ahead in range(index + 1, min(index + most, len(packs))):
                if used[ahead]:
                    continue
                other = packs[ahead]
                op = other.nodes[0].op
                if op not in safe:
                    break
                if (op in VIEW_OPS or running.is_free_of(other)) and waiting.is_free_of(other):
                    running.add(other)
                    used[ahead] = True
                    yield other
                else:
                    waiting.add(other)
            running = _Touched()
        running.add(pack)
        yield pack
