"""The order in which the Metal backend computes a graph, and what its fused kernels keep allocated.

`ggml/src/ggml-metal/ggml-metal-common.cpp` (`ggml_graph_optimize`) and `ggml-metal-fusion.cpp`, release 0.5.0:
sequences that are one kernel are packed, then packs that touch nothing in common are brought forward. Memory is told
apart by tensor, as addresses do in a run.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from .ggml import FLAG_OUTPUT, Ggml, Graph, Tensor

_EMPTY = frozenset({"NONE", "RESHAPE", "TRANSPOSE", "VIEW", "PERMUTE"})
#: Operations across which others may be brought forward.
_SAFE = _EMPTY | frozenset(
    "MUL_MAT MUL_MAT_ID ROPE NORM RMS_NORM GROUP_NORM L2_NORM SUM_ROWS SSM_CONV SSM_SCAN CLAMP TRI DIAG MUL ADD SUB DIV"
    " GLU SCALE UNARY GET_ROWS SET_ROWS SET CPY CONT REPEAT".split()
)
_AHEAD = 64
#: Nodes that are packed at most.
_PACK = 16
_MAX_EXPERTS, _MAX_SUMMED = 1024, 8

_CHOICE = ("SOFT_MAX", "RESHAPE", "ARGSORT", "VIEW", "GET_ROWS")
_NORMED = (*_CHOICE, "RESHAPE", "SUM_ROWS", "CLAMP", "DIV", "RESHAPE")
_SNAKE = ("MUL", "SIN", "SQR", "MUL", "ADD")


@dataclass(frozen=True)
class _Fusion:
    """A sequence that is one kernel: all its operations, and how it is checked."""

    kind: str
    ops: tuple[str, ...]

    @property
    def filled(self) -> tuple[str, ...]:
        """The operations that compute something."""
        return tuple(op for op in self.ops if op not in _EMPTY)


_FUSIONS = (
    *(_Fusion("norm", (norm, *rest)) for norm in ("NORM", "RMS_NORM") for rest in (("MUL",), ("MUL", "ADD"))),
    *(_Fusion("scaled norm", (norm, "SCALE")) for norm in ("NORM", "RMS_NORM")),
    *(_Fusion("additions", ("ADD",) * count) for count in range(2, 8)),
    _Fusion("snake", _SNAKE),
    _Fusion("delta", ("GATED_DELTA_NET", "CPY")),
    *(_Fusion("choice", ops) for ops in (_CHOICE, (*_CHOICE, "SCALE"), _NORMED, (*_NORMED, "SCALE"))),
    *(
        _Fusion("sum", ("MUL", *("VIEW",) * count, *("ADD",) * (count - 1)))
        for count in range(2, _MAX_SUMMED + 1)
    ),
    _Fusion("convolution", ("SSM_CONV", "UNARY")),
)


def reorder(ggml: Ggml, graph: Graph, keep: Callable[[int, int], None] | None) -> None:
    """Put the graph's nodes into the backend's order.

    Parameters
    ----------
    keep
        Called with an input of a fused sequence and the node until which it must live; None in builds without.
    """
    _Order(ggml, graph).run(keep)


class _Order:
    def __init__(self, ggml: Ggml, graph: Graph) -> None:
        self.ggml = ggml
        self.graph = graph
        self.nodes = [graph.node(index) for index in range(graph.n_nodes)]
        self.ops = tuple(ggml.op_names[node.op] for node in self.nodes)

    def run(self, keep: Callable[[int, int], None] | None) -> None:
        if keep is not None:
            self._keep_inputs(keep)
        packs = self._packs()
        order = [self.nodes[index].address for pack in _ordered(packs) for index in pack.indices]
        for index, address in enumerate(order):
            self.graph.nodes[index] = address

    def _keep_inputs(self, keep: Callable[[int, int], None]) -> None:
        """What any sequence of fused operations reads lives until its last one."""
        index = 0
        while index < len(self.nodes):
            best = max(
                (len(one.ops) for one in _FUSIONS if self.ops[index : index + len(one.ops)] == one.ops),
                default=0,
            )
            if best:
                seen: set[int] = set()
                last = self.nodes[index + best - 1].address
                for node in self.nodes[index : index + best]:
                    for source in node.src:
                        if source and source not in seen:
                            seen.add(source)
                            keep(source, last)
                    seen.add(node.address)
                index += best - 1
            index += 1

    def _packs(self) -> list[_Pack]:
        packs = []
        index = 0
        while index < len(self.nodes):
            count = self._packed(index)
            indices = range(index, index + count)
            packs.append(_pack(indices, [self.nodes[i] for i in indices], self.ops[index]))
            index += count
        return packs

    def _packed(self, index: int) -> int:
        """Number of nodes from here that stay together."""
        if self.ops[index] in _EMPTY:
            return 1
        filled = []
        for at in range(index, len(self.nodes)):
            if self.ops[at] not in _EMPTY:
                filled.append(at)
                if len(filled) == _PACK:
                    break
        done = 0
        while done < len(filled):
            length = self._fused(filled, done)
            if length < 2 or done + length > _PACK:
                break
            done += length
        return min(_PACK, filled[done - 1] - index + 1) if done else 1

    def _fused(self, filled: list[int], start: int) -> int:
        """Length of the longest sequence of operations that is one kernel here."""
        best = 1
        for fusion in _FUSIONS:
            ops = fusion.filled
            at = filled[start : start + len(ops)]
            if (
                len(ops) <= best
                or len(at) < len(ops)
                or any(self.ops[i] != op for i, op in zip(at, ops, strict=True))
            ):
                continue
            if self._holds(fusion, at):
                best = len(ops)
        return best

    def _holds(self, fusion: _Fusion, at: list[int]) -> bool:
        nodes = [self.nodes[index] for index in at]
        if fusion.kind == "choice":
            return self._is_choice(fusion, at)
        if fusion.kind == "sum":
            return self._is_sum(fusion, at)
        if fusion.kind == "delta":
            return self._is_delta(*nodes)
        base = self.ggml.base
        for before, node in pairwise(nodes):
            if before.address not in (node.src[0], node.src[1]):
                return False
            if not base.ggml_are_same_shape(node.address, before.address):
                return False
        if not self._elidable(at, [node.op for node in nodes], [at[-1]]):
            return False
        if fusion.kind == "norm":
            return self._is_norm(nodes)
        if fusion.kind == "scaled norm":
            return nodes[1].src[0] == nodes[0].address and self._type(nodes[1]) == "f32"
        if fusion.kind == "additions":
            return self._is_chain(nodes)
        if fusion.kind == "convolution":
            silu = self.ggml.unary_names[base.ggml_get_unary_op(nodes[1].address)] == "SILU"
            return silu and {self._type(node) for node in nodes} == {"f32"}
        return True

    def _type(self, tensor: Tensor) -> str:
        return self.ggml.type_names[tensor.type]

    def _is_norm(self, nodes: list[Tensor]) -> bool:
        for before, node in pairwise(nodes):
            weight = node.source(1)
            if node.src[0] != before.address or weight is None or weight.ne[0] != nodes[0].ne[0]:
                return False
            if not self.ggml.base.ggml_is_contiguous_rows(weight.address) or self._type(node) != "f32":
                return False
        return True

    def _is_chain(self, nodes: list[Tensor]) -> bool:
        first = nodes[0].source(1)
        for before, node in pairwise(nodes):
            other, added = before.source(1), node.source(1)
            if node.src[0] != before.address or other is None or added is None:
                return False
            if (list(other.ne), list(other.nb), other.type) != (list(added.ne), list(added.nb), added.type):
                return False
        return first is not None

    def _is_delta(self, delta: Tensor, copy: Tensor) -> bool:
        if self._type(delta) != "f32" or (delta.flags | copy.flags) & FLAG_OUTPUT:
            return False
        values, source, cache = delta.source(2), copy.source(0), copy.source(1)
        if values is None or source is None or cache is None:
            return False
        size, heads, tokens, sequences = values.ne
        offset = 4 * size * heads * tokens * sequences
        if self.ggml.op_names[source.op] != "VIEW" or source.view_src != delta.address:
            return False
        if source.view_offs != offset or not self.ggml.base.ggml_is_contiguous(source.address):
            return False
        state = size * size * heads
        written = min(tokens, delta.op_params[0])
        return (
            self._type(cache) == "f32"
            and list(cache.ne) == [state, sequences, written, 1]
            and (cache.nb[0], cache.nb[1]) == (4, 4 * state)
        )

    def _is_choice(self, fusion: _Fusion, at: list[int]) -> bool:
        start, end = at[0], at[-1]
        if len(fusion.filled) >= 6 and fusion.ops[-1] == "RESHAPE":
            end += 1
        span = self.ops[start : end + 1]
        if span != fusion.ops:
            return False
        nodes = self.nodes[start : end + 1]
        gate, reshaped, sorted_, ids, rows = nodes[:5]
        logits, out = gate.source(0), nodes[-1]
        if (
            logits is None
            or gate.src[1]
            or gate.src[2]
            or (gate.op_params[0], gate.op_params[1]) != (0x3F800000, 0)
        ):
            return False
        if {self._type(one) for one in (logits, gate, out)} != {"f32"} or self._type(ids) != "i32":
            return False
        experts, tokens, used = logits.ne[0], logits.ne[1], ids.ne[0]
        if not 0 < used <= experts <= _MAX_EXPERTS or list(logits.ne[2:]) != [1, 1]:
            return False
        if list(ids.ne[1:]) != [tokens, 1, 1] or list(out.ne) != [1, used, tokens, 1]:
            return False
        plain = self.ggml.base.ggml_is_contiguous
        if not plain(logits.address) or not plain(out.address) or (ids.nb[0], ids.nb[1]) != (4, 4 * experts):
            return False
        linked = [
            (reshaped.src[0], gate), (sorted_.src[0], gate), (ids.src[0], sorted_), (rows.src[0], reshaped),
            (rows.src[1], ids),
        ]  # fmt: skip
        if len(nodes) >= 10:
            weights, sums, clamped, divided, result = nodes[5:10]
            linked += [
                (weights.src[0], rows), (sums.src[0], weights), (clamped.src[0], sums), (divided.src[0], weights),
                (divided.src[1], clamped), (result.src[0], divided),
            ]  # fmt: skip
        if fusion.ops[-1] == "SCALE":
            linked.append((nodes[-1].src[0], nodes[-2]))
        if any(source != node.address for source, node in linked):
            return False
        indices = list(range(start, end + 1))
        return self._elidable(indices, [node.op for node in nodes], [start + 3, end])

    def _is_sum(self, fusion: _Fusion, at: list[int]) -> bool:
        start, count = at[0], len(fusion.ops)
        used = count // 2
        if self.ops[start : start + count] != fusion.ops or at[-1] != start + count - 1:
            return False
        nodes = self.nodes[start : start + count]
        product, views, additions, result = nodes[0], nodes[1 : used + 1], nodes[used + 1 :], nodes[-1]
        experts, weights = product.source(0), product.source(1)
        if experts is None or weights is None:
            return False
        if {self._type(one) for one in (product, experts, weights, result)} != {"f32"}:
            return False
        width, tokens = experts.ne[0], experts.ne[2]
        if list(experts.ne[1:]) != [used, tokens, 1] or list(weights.ne) != [1, used, tokens, 1]:
            return False
        if list(result.ne) != [width, tokens, 1, 1]:
            return False
        plain = self.ggml.base.ggml_is_contiguous
        if not all(plain(one.address) for one in (experts, weights, result)):
            return False
        for index, view in enumerate(views):
            if (view.view_src, view.src[0], view.view_offs) != (
                product.address,
                product.address,
                index * product.nb[1],
            ) or (view.ne[0], view.ne[1], view.nb[1]) != (width, tokens, product.nb[2]):
                return False
        left = views[0].address
        for addition, view in zip(additions, views[1:], strict=True):
            if (addition.src[0], addition.src[1]) != (left, view.address):
                return False
            left = addition.address
        indices = list(range(start, start + count))
        return self._elidable(indices, [node.op for node in nodes], [start + count - 1])

    def _elidable(self, indices: list[int], ops: list[int], outputs: list[int]) -> bool:
        count = len(indices)
        numbers, kinds = (c.c_int * count)(*indices), (c.c_int * count)(*ops)
        results = (c.c_int * len(outputs))(*outputs)
        return bool(
            self.ggml.base.ggml_can_fuse_subgraph_ext(
                c.addressof(self.graph),
                c.addressof(numbers),
                count,
                c.addressof(kinds),
                c.addressof(results),
                len(outputs),
            )
        )


@dataclass(slots=True)
class _Pack:
    """Nodes that stay together: what they read from outside, and what they write, by base tensor."""

    indices: range
    op: str
    reads: frozenset[int]
    writes: frozenset[int]


def _pack(indices: range, nodes: list[Tensor], op: str) -> _Pack:
    own = {node.address for node in nodes}
    reads = {
        Tensor.from_address(source).view_src or source
        for node in nodes
        for source in node.src
        if source and source not in own
    }
    return _Pack(indices, op, frozenset(reads), frozenset(node.view_src or node.address for node in nodes))


class _Touched:
    """Memory that is read or written by packs which run at once."""

    def __init__(self) -> None:
        self.read: set[int] = set()
        self.written: set[int] = set()

    def add(self, pack: _Pack) -> None:
        self.read |= pack.reads
        self.written |= pack.writes

    def free_of(self, pack: _Pack) -> bool:
        return (
            self.written.isdisjoint(pack.reads)
            and self.written.isdisjoint(pack.writes)
            and self.read.isdisjoint(pack.writes)
        )


def _ordered(packs: list[_Pack]) -> Iterable[_Pack]:
    """Packs in the order in which they run: before each barrier, those further on that can still join."""
    used = [False] * len(packs)
    running = _Touched()
    for index, pack in enumerate(packs):
        if used[index]:
            continue
        if pack.op not in _EMPTY and not running.free_of(pack):
            waiting = _Touched()
            waiting.add(pack)
            for ahead in range(index + 1, min(index + _AHEAD, len(packs))):
                other = packs[ahead]
                if used[ahead]:
                    continue
                if other.op not in _SAFE:
                    break
                if (other.op in _EMPTY or running.free_of(other)) and waiting.free_of(other):
                    running.add(other)
                    used[ahead] = True
                    yield other
                else:
                    waiting.add(other)
            running = _Touched()
        running.add(pack)
        yield pack
