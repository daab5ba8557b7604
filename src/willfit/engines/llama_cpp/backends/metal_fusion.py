"""Sequences of operations that Metal computes as one kernel (`ggml-metal-fusion.cpp`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from willfit.engines.llama_cpp.graph.fusion import Pattern, closed, read_from_outside
from willfit.engines.llama_cpp.graph.tensor import VIEW_OPS, Node

#: Most operations that are packed.
_PACK = 16
_MOST_EXPERTS, _MOST_SUMMED, _MOST_ADDED = 1024, 8, 7

_CHOICE: Pattern = ("soft_max", "reshape", "argsort", "view", "get_rows")
_NORMED: Pattern = (*_CHOICE, "reshape", "sum_rows", "clamp", "div", "reshape")


@dataclass(frozen=True, slots=True)
class _Fusion:
    """A sequence that is one kernel: all its operations, and what must hold of those that are no views."""

    ops: Pattern
    holds: Callable[[Sequence[Node], Sequence[int], Mapping[int, int], Pattern], bool]

    @property
    def filled(self) -> Pattern:
        """The operations that compute something."""
        return tuple(op for op in self.ops if op not in VIEW_OPS)


def lifetimes(nodes: Sequence[Node]) -> list[tuple[Node, Node]]:
    """Pairs (tensor, until): what any sequence of fused operations reads is kept until its last one."""
    ops = tuple(node.op for node in nodes)
    found = []
    index = 0
    while index < len(nodes):
        best = max(
            (
                len(one.ops)
                for one in _BY_FIRST.get(ops[index], ())
                if ops[index : index + len(one.ops)] == one.ops
            ),
            default=0,
        )
        if best:
            inside = nodes[index : index + best]
            found += [(source, inside[-1]) for source in read_from_outside(inside)]
            index += best - 1
        index += 1
    return found


def packed(nodes: Sequence[Node], start: int, uses: Mapping[int, int]) -> int:
    """How many operations from here on stay together, views between them included."""
    if nodes[start].op not in _BY_FIRST:
        return 1
    filled = []
    for at in range(start, len(nodes)):
        if nodes[at].op not in VIEW_OPS:
            filled.append(at)
            if len(filled) == _PACK:
                break
    done = 0
    while done < len(filled):
        length = _longest(nodes, filled[done:], uses)
        if length < 2 or done + length > _PACK:
            break
        done += length
    return min(_PACK, filled[done - 1] - start + 1) if done else 1


def _longest(nodes: Sequence[Node], filled: Sequence[int], uses: Mapping[int, int]) -> int:
    """Length of the longest sequence that is one kernel here, without views."""
    best = 1
    for fusion in _BY_FIRST.get(nodes[filled[0]].op, ()):
        ops = fusion.filled
        if best < len(ops) <= len(filled):
            at = filled[: len(ops)]
            same = all(nodes[index].op == op for index, op in zip(at, ops, strict=True))
            if same and fusion.holds(nodes, at, uses, fusion.ops):
                best = len(ops)
    return best


def _is_chain(nodes: Sequence[Node], at: Sequence[int], uses: Mapping[int, int]) -> bool:
    """Whether each operation reads the one before, of the same shape, and nothing else does."""
    chain = [nodes[index] for index in at]
    return all(
        any(source is before for source in node.src[:2]) and node.ne == before.ne
        for before, node in pairwise(chain)
    ) and closed(chain, chain[-1:], uses)


def _is_norm(nodes: Sequence[Node], at: Sequence[int], uses: Mapping[int, int], _: Pattern) -> bool:
    chain = [nodes[index] for index in at]
    for before, node in pairwise(chain):
        if node.src[0] is not before or node.type != "F32":
            return False
        if node.op != "scale" and (node.src[1].ne[0] != chain[0].ne[0] or not node.src[1].has_plain_rows):
            return False
    return _is_chain(nodes, at, uses)


def _is_sum_of_many(nodes: Sequence[Node], at: Sequence[int], uses: Mapping[int, int], _: Pattern) -> bool:
    for before, node in pairwise([nodes[index] for index in at]):
        a, b = before.src[1], node.src[1]
        if node.src[0] is not before or (a.type, a.ne, a.nb) != (b.type, b.ne, b.nb):
            return False
    return _is_chain(nodes, at, uses)


def _is_convolution(nodes: Sequence[Node], at: Sequence[int], uses: Mapping[int, int], _: Pattern) -> bool:
    silu = nodes[at[1]]
    return silu.kind == "silu" and silu.type == "F32" and _is_chain(nodes, at, uses)


def _writes_states(nodes: Sequence[Node], at: Sequence[int], _: Mapping[int, int], __: Pattern) -> bool:
    """Whether new states go straight to the cache: a copy of them follows."""
    delta, copy = nodes[at[0]], nodes[at[1]]
    if delta.type != "F32" or delta.is_output or copy.is_output:
        return False
    width, heads, tokens, sequences = delta.src[2].ne
    snapshots = (delta.ne[1] - tokens * sequences) // (width * sequences)
    source, cache = copy.src[:2]
    if source.op != "view" or source.view is not delta or not source.is_contiguous:
        return False
    if source.offset != 4 * width * heads * tokens * sequences:
        return False
    state = width * width * heads
    return (
        cache.type == "F32"
        and cache.ne == (state, sequences, min(tokens, snapshots), 1)
        and cache.nb[:2] == (4, 4 * state)
    )


def _is_choice(nodes: Sequence[Node], at: Sequence[int], uses: Mapping[int, int], ops: Pattern) -> bool:
    """Whether experts are chosen by a softmax without a mask, with or without norm and scale of their weights."""
    start, end = at[0], at[-1] + (ops[-1] == "reshape")
    inside = nodes[start : end + 1]
    if tuple(node.op for node in inside) != ops:
        return False
    gate, reshaped, order, ids, rows = inside[:5]
    logits, out = gate.src[0], inside[-1]
    if len(gate.src) > 1 or {one.type for one in (logits, gate, out)} != {"F32"} or ids.type != "I32":
        return False
    experts, tokens, used = logits.ne[0], logits.ne[1], ids.ne[0]
    if not 0 < used <= experts <= _MOST_EXPERTS or logits.ne[2:] != (1, 1):
        return False
    if ids.ne[1:] != (tokens, 1, 1) or out.ne != (1, used, tokens, 1):
        return False
    if not logits.is_contiguous or not out.is_contiguous or ids.nb[:2] != (4, 4 * experts):
        return False
    read = [(reshaped, 0, gate), (order, 0, gate), (ids, 0, order), (rows, 0, reshaped), (rows, 1, ids)]
    if len(inside) >= len(_NORMED):
        weights, sums, clamped, divided, result = inside[5:10]
        read += [
            (weights, 0, rows), (sums, 0, weights), (clamped, 0, sums), (divided, 0, weights), (divided, 1, clamped),
            (result, 0, divided),
        ]  # fmt: skip
    if ops[-1] == "scale":
        read.append((out, 0, inside[-2]))
    if any(node.src[place] is not source for node, place, source in read):
        return False
    return closed(inside, (ids, out), uses)


def _is_weighted_sum(nodes: Sequence[Node], at: Sequence[int], uses: Mapping[int, int], ops: Pattern) -> bool:
    """Whether a view of each expert's part of a product is added up."""
    start, used = at[0], len(ops) // 2
    inside = nodes[start : start + len(ops)]
    if tuple(node.op for node in inside) != ops or at[-1] != start + len(ops) - 1:
        return False
    product, views, sums, result = inside[0], inside[1 : used + 1], inside[used + 1 :], inside[-1]
    experts, weights = product.src
    if {one.type for one in (product, experts, weights, result)} != {"F32"}:
        return False
    width, _, tokens, _ = experts.ne
    if experts.ne[1:] != (used, tokens, 1) or weights.ne != (1, used, tokens, 1):
        return False
    if result.ne != (width, tokens, 1, 1):
        return False
    if not (experts.is_contiguous and weights.is_contiguous and result.is_contiguous):
        return False
    for index, view in enumerate(views):
        if view.view is not product or view.src[0] is not product or view.offset != index * product.nb[1]:
            return False
        if view.ne[:2] != (width, tokens) or view.nb[1] != product.nb[2]:
            return False
    left = views[0]
    for addition, view in zip(sums, views[1:], strict=True):
        if addition.src[0] is not left or addition.src[1] is not view:
            return False
        left = addition
    return closed(inside, inside[-1:], uses)


_FUSIONS = (
    *(
        _Fusion((norm, *rest), _is_norm)
        for norm in ("norm", "rms_norm")
        for rest in (("mul",), ("mul", "add"), ("scale",))
    ),
    *(_Fusion(("add",) * count, _is_sum_of_many) for count in range(2, _MOST_ADDED + 1)),
    _Fusion(("gated_delta_net", "cpy"), _writes_states),
    *(_Fusion(ops, _is_choice) for ops in (_CHOICE, (*_CHOICE, "scale"), _NORMED, (*_NORMED, "scale"))),
    *(
        _Fusion(("mul", *("view",) * count, *("add",) * (count - 1)), _is_weighted_sum)
        for count in range(2, _MOST_SUMMED + 1)
    ),
    _Fusion(("ssm_conv", "unary"), _is_convolution),
)
_BY_FIRST: dict[str, list[_Fusion]] = {}
for _one in _FUSIONS:
    _BY_FIRST.setdefault(_one.ops[0], []).append(_one)
