"""The order in which the Vulkan backend computes a graph: independent nodes next to each other.

`ggml/src/ggml-vulkan/ggml-vulkan.cpp` (`ggml_vk_graph_optimize`), release 0.5.0. The order decides which results live
at the same time, so it changes the compute buffer.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Callable
from dataclasses import dataclass

from .ggml import Ggml, Graph, Tensor

_EMPTY = frozenset({"NONE", "RESHAPE", "TRANSPOSE", "VIEW", "PERMUTE"})
#: How far ahead nodes are looked at, and how far for one that completes a fusion.
_AHEAD, _NEAR = 20, 15

_NORM = ("RESHAPE", "SUM_ROWS", "CLAMP", "DIV", "RESHAPE")
_CHOICES = (
    ("SOFT_MAX", "RESHAPE", "ARGSORT", "VIEW", "GET_ROWS", *_NORM),
    ("UNARY", "RESHAPE", "ADD", "ARGSORT", "VIEW", "GET_ROWS", *_NORM),
    ("UNARY", "SQRT", "RESHAPE", "ADD", "ARGSORT", "VIEW", "GET_ROWS", *_NORM),
    ("SOFT_MAX", "RESHAPE", "ARGSORT", "VIEW", "GET_ROWS"),
    ("ARGSORT", "VIEW", "GET_ROWS", "RESHAPE", "SOFT_MAX", "RESHAPE"),
)
_SPARSE_CHOICE = ("GET_ROWS", "PERMUTE", "CONT", "CPY", "RESHAPE", "ADD", "TOP_K")
_GATE = ("SCALE", "UNARY", "SCALE", "DSV4_HC_POST")
_SNAKE = ("MUL", "SIN", "SQR", "MUL", "ADD")
_OTHERS = (
    ("RMS_NORM", "MUL", "ADD", "MUL"),
    ("RMS_NORM", "MUL", "ADD"),
    ("RMS_NORM", "MUL", "ROPE", "VIEW", "SET_ROWS"),
    ("RMS_NORM", "VIEW", "SET_ROWS"),
    ("ROPE", "VIEW", "SET_ROWS"),
)
#: Sequences that stay together, in the order in which they are looked for.
_KEPT = (_SNAKE, _SPARSE_CHOICE, *_OTHERS)
#: Pairs that may follow each other though the second needs the first.
_ADJACENT = frozenset({
    ("MUL_MAT", "ADD"), ("MUL_MAT_ID", "ADD_ID"), ("MUL_MAT_ID", "MUL"), ("ADD", "ADD"), ("SSM_CONV", "ADD"),
    ("SSM_CONV", "UNARY"),
})  # fmt: skip
#: The same where only views or what has been placed lies between.
_NEARBY = frozenset({("RMS_NORM", "MUL"), ("UNARY", "MUL")})
_GATED = frozenset({"GELU", "SIGMOID", "SILU", "SOFTPLUS"})


@dataclass(slots=True)
class _Node:
    """What the order depends on."""

    tensor: Tensor
    address: int
    op: str
    empty: bool
    base: int
    sources: tuple[int | None, ...]
    source_set: frozenset[int]
    source_bases: frozenset[int]

    def follows(self, other: _Node) -> bool:
        """Whether it needs `other` computed first."""
        if other.address in self.source_set or self.base == other.base:
            return True
        if self.empty or other.empty:
            return False
        return other.base in self.source_bases or self.base in other.source_bases


def reorder(ggml: Ggml, graph: Graph, keep: Callable[[int, int], None] | None) -> None:
    """Put the graph's nodes into the backend's order.

    Parameters
    ----------
    keep
        Called with an input of a fused choice of experts and the node until which it must live; None in builds without.
    """
    order = _Order(ggml, graph, keep).run()
    for index, address in enumerate(order):
        graph.nodes[index] = address


class _Order:
    def __init__(self, ggml: Ggml, graph: Graph, keep: Callable[[int, int], None] | None) -> None:
        self.ggml = ggml
        self.graph = graph
        self.keep = keep
        self.nodes = [self._node(graph.node(index)) for index in range(graph.n_nodes)]
        self.used = [False] * len(self.nodes)
        self.begins = self._beginnings()
        self.sparse = {
            start + offset
            for start, patterns in self.begins.items()
            if _SPARSE_CHOICE in patterns
            for offset in range(len(_SPARSE_CHOICE))
        }
        self.order: list[int] = []
        self.placed: set[int] = set()
        self.first = 0

    def _node(self, tensor: Tensor) -> _Node:
        sources = tuple(tensor.src)
        found = frozenset(address for address in sources if address)
        op = self.ggml.op_names[tensor.op]
        return _Node(
            tensor,
            tensor.address,
            op,
            op in _EMPTY,
            tensor.view_src or tensor.address,
            sources,
            found,
            frozenset(Tensor.from_address(address).view_src or address for address in found),
        )

    def run(self) -> list[int]:
        while self.first < len(self.nodes):
            if not self._pattern_here():
                self._place(self._gather())
        return self.order

    def _beginnings(self) -> dict[int, list[tuple[str, ...]]]:
        """Sequences of operations that stay together, by where they begin."""
        ops = tuple(node.op for node in self.nodes)
        found: dict[int, list[tuple[str, ...]]] = {}
        for pattern in (*_CHOICES, *_KEPT, _GATE):
            for start in range(len(ops) - len(pattern) + 1):
                if ops[start] == pattern[0] and ops[start : start + len(pattern)] == pattern:
                    found.setdefault(start, []).append(pattern)
        return found

    def _matches(self, pattern: tuple[str, ...], start: int) -> bool:
        """Whether it begins there, and none of it has been placed."""
        return pattern in self.begins.get(start, ()) and not any(self.used[start : start + len(pattern)])

    def _place(self, indices: list[int]) -> None:
        for index in indices:
            self.order.append(self.nodes[index].address)
            self.placed.add(self.nodes[index].address)
            self.used[index] = True
        while self.first < len(self.nodes) and self.used[self.first]:
            self.first += 1

    def _pattern_here(self) -> bool:
        """Place a sequence that must stay together, if one begins here."""
        first = self.first
        for pattern in _CHOICES:
            if self._matches(pattern, first):
                last = first + len(pattern) - 1
                if last + 1 < len(self.nodes) and self.nodes[last + 1].op == "SCALE":
                    last += 1
                self._keep_inputs(len(pattern), last)
                self._place(list(range(first, first + len(pattern))))
                return True
        for pattern in _KEPT:
            if self._matches(pattern, first):
                self._place(list(range(first, first + len(pattern))))
                return True
        if self._matches(_GATE, first):
            self._keep_inputs(len(_GATE), first + len(_GATE) - 1)
            self._place(list(range(first, first + len(_GATE))))
            return True
        return False

    def _keep_inputs(self, count: int, last: int) -> None:
        if self.keep is None:
            return
        seen: set[int] = set()
        for node in self.nodes[self.first : self.first + count]:
            for source in node.sources:
                if source and source not in seen:
                    seen.add(source)
                    self.keep(source, self.nodes[last].address)
            seen.add(node.address)

    def _begins_pattern(self, index: int) -> bool:
        """Whether it must wait for its sequence; a sparse choice is not even entered."""
        if any(
            pattern != _SPARSE_CHOICE and self._matches(pattern, index)
            for pattern in self.begins.get(index, ())
        ):
            return True
        return index in self.sparse and any(
            self._matches(_SPARSE_CHOICE, index - offset) for offset in range(len(_SPARSE_CHOICE))
        )

    def _gather(self) -> list[int]:
        """The next node, and those ahead that can run beside it."""
        nodes, first = self.nodes, self.first
        current = [first]
        end = min(first + _AHEAD, len(nodes))
        for index in range(first + 1, end):
            if self.used[index] or nodes[index].empty or self._begins_pattern(index):
                continue
            if self._can_join(current, index):
                current.append(index)
                self._complete(current, index)
        if nodes[current[-1]].op != "ADD":
            for index in range(first + 1, end):
                if self.used[index] or not nodes[index].empty:
                    continue
                if not any(
                    not self.used[other] and other not in current and nodes[index].follows(nodes[other])
                    for other in range(first, index)
                ):
                    current.append(index)
        return current

    def _can_join(self, current: list[int], index: int) -> bool:
        node = self.nodes[index]
        for other in range(self.first, index):
            before = self.nodes[other]
            if self.used[other] or not node.follows(before):
                continue
            if other != current[-1]:
                return False
            pair = (before.op, node.op)
            near = pair in _NEARBY and all(
                self.used[between] or self.nodes[between].empty for between in range(other + 1, index)
            )
            if not near and not (pair in _ADJACENT and index == other + 1):
                return False
        return True

    def _complete(self, current: list[int], index: int) -> None:
        """Take what completes a fusion that the node at `index` belongs to."""
        nodes = self.nodes
        node, before = nodes[index], nodes[index - 1]
        rope = index
        if node.op == "MUL" and before.op == "RMS_NORM":
            found = self._near(index, lambda one: self._is_rope_of(one, node), taken=True)
            if found is not None:
                rope = found
                self._pull(current, rope)
        if nodes[rope].op in ("ROPE", "RMS_NORM"):
            self._pull_rows(current, rope)
        if node.op == "ADD_ID" and before.op == "MUL_MAT_ID":
            self._pull_near(current, index, lambda one: self._scales(one, node, "MUL"))
        if node.op == "ADD" and before.op == "MUL_MAT":
            self._pull_near(current, index, lambda one: self._scales(one, node, "ADD"))
        if node.op == "ADD" and before.op == "SSM_CONV":
            self._pull_near(current, index, lambda one: one.op == "UNARY" and one.sources[0] == node.address)
        if node.op == "UNARY":
            self._pull_near(current, index, lambda one: self._gates(one, node))

    def _near(self, index: int, wanted: Callable[[_Node], bool], taken: bool) -> int | None:
        for at in range(index + 1, min(index + _NEAR, len(self.nodes))):
            if (taken or not self.used[at]) and wanted(self.nodes[at]):
                return at
        return None

    def _pull(self, current: list[int], index: int) -> None:
        current.append(index)
        self.used[index] = True

    def _pull_near(self, current: list[int], index: int, wanted: Callable[[_Node], bool]) -> None:
        found = self._near(index, wanted, taken=True)
        if found is not None:
            self._pull(current, found)

    def _ready(self, address: int | None) -> bool:
        """Whether it is a leaf or has been placed."""
        if address is None:
            return False
        return self.ggml.op_names[Tensor.from_address(address).op] == "NONE" or address in self.placed

    def _is_rope_of(self, node: _Node, normed: _Node) -> bool:
        if node.op != "ROPE" or node.sources[0] != normed.address:
            return False
        none = self.ggml.ops["NONE"]
        return all(
            address is None or Tensor.from_address(address).op == none for address in node.sources[1:3]
        )

    def _scales(self, node: _Node, result: _Node, op: str) -> bool:
        return node.op == op and node.sources[0] == result.address and self._ready(node.sources[1])

    def _gates(self, node: _Node, unary: _Node) -> bool:
        """`ggml_vk_can_fuse_unary_mul`: a product with an activation."""
        if node.op != "MUL" or unary.address not in node.sources[:2]:
            return False
        first = node.sources[0] == unary.address
        other = node.sources[1] if first else node.sources[0]
        if other is None or not self._ready(other):
            return False
        base, tensor = self.ggml.base, Tensor.from_address(other)
        if self.ggml.unary_names[base.ggml_get_unary_op(unary.address)] not in _GATED:
            return False
        kinds = {unary.tensor.type, node.tensor.type, tensor.type}
        if len(kinds) != 1 or self.ggml.type_names[unary.tensor.type] not in ("f32", "f16"):
            return False
        if not base.ggml_is_contiguous_1(other) or not base.ggml_is_contiguous_1(unary.sources[0]):
            return False
        small, large = (other, unary.address) if first else (unary.address, node.sources[0])
        return bool(base.ggml_can_repeat(small, large))

    def _pull_rows(self, current: list[int], start: int) -> None:
        """The view of a rotated or normed result, and the rows that it is written to."""
        nodes = self.nodes
        view = rows = -1
        for at in range(start + 1, min(start + _NEAR, len(nodes))):
            if self.used[at]:
                continue
            node = nodes[at]
            if view == -1 and node.op == "VIEW" and node.sources[0] == nodes[start].address:
                view = at
            elif view != -1 and node.op == "SET_ROWS" and node.sources[0] == nodes[view].address:
                rows = at
                break
        if rows == -1 or not self._fusible((start, view, rows)):
            return
        for between in range(start + 1, rows):
            if self.used[between] or between == view or nodes[between].empty:
                continue
            if nodes[rows].follows(nodes[between]):
                return
        self._pull(current, view)
        self._pull(current, rows)

    def _fusible(self, indices: tuple[int, ...]) -> bool:
        count = len(indices)
        numbers = (c.c_int * count)(*indices)
        ops = (c.c_int * count)(*(self.nodes[index].tensor.op for index in indices))
        last = (c.c_int * 1)(indices[-1])
        return bool(
            self.ggml.base.ggml_can_fuse_subgraph_ext(
                c.addressof(self.graph), c.addressof(numbers), count, c.addressof(ops), c.addressof(last), 1
            )
        )
