"""What CUDA keeps longer because one kernel computes several operations of a mixture of experts.

`ggml-cuda.cu: ggml_backend_cuda_graph_optimize`: the choice of experts, and the weighted sum of what they return.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from willfit.engines.llama_cpp.graph.fusion import closed
from willfit.engines.llama_cpp.graph.tensor import Node

#: Experts of a token whose results one kernel sums (`MOE_WEIGHTED_REDUCTION_MAX_EXPERTS`).
_MOST_SUMMED = 15
#: Numbers of experts to choose from that have a kernel, beside the powers of two up to 512.
_ODD_COUNTS = (288, 576)
_MOST_COUNTED = 512
_CHOICES = frozenset(("unary", "soft_max"))


def lifetimes(
    nodes: Sequence[Node], uses: Mapping[int, int], choices: bool = True
) -> Iterator[tuple[Node, Node]]:
    """Pairs (tensor, until): the tensor is kept until a later operation has been computed.

    Parameters
    ----------
    nodes
        Operations of one split, in order.
    uses
        How often each tensor is read in the whole graph, by its identity.
    choices
        The choice of experts is one kernel, too.
    """
    index = 0
    while index < len(nodes):
        node = nodes[index]
        if node.op == "mul":
            found = _weighted_sum(nodes, index, uses)
            if found is not None:
                kept, length = found
                index += length - 1
                node = nodes[index]
                for one in kept:
                    yield one, node
        if choices and node.op in _CHOICES:
            length = _choice(nodes, index, uses)
            if length and index + length < len(nodes):
                until = nodes[index + length]
                for inside in nodes[index : index + length]:
                    yield inside, until
                    for source in inside.src:
                        yield source, until
                index += length - 1
        index += 1


def _weighted_sum(
    nodes: Sequence[Node], start: int, uses: Mapping[int, int]
) -> tuple[tuple[Node, ...], int] | None:
    """What a weighted sum reads, and how many operations it has; None if there is none."""
    first = nodes[start]
    if first.type != "F32" or not first.is_contiguous:
        return None
    parts, weighted, products = _factors(first), first, 1
    kept = parts
    if start + 1 < len(nodes):
        second = nodes[start + 1]
        if second.op == "mul" and second.type == "F32" and second.is_contiguous:
            outer = _factors(second)
            if outer is not None and parts is not None and outer[0] is first:
                weighted, products = second, 2
                kept = (parts[0], outer[1], parts[1])
    if kept is None:
        return None
    used, tokens = weighted.ne[1], weighted.ne[2] * weighted.ne[3]
    if not 2 <= used <= _MOST_SUMMED or tokens <= 0:
        return None
    length = 2 * used + products - 1
    inside = nodes[start : start + length]
    if len(inside) < length or not _sums_up(inside[products:], weighted, used, tokens):
        return None
    return (kept, length) if closed(inside, (inside[-1],), uses) else None


def _factors(product: Node) -> tuple[Node, ...] | None:
    """What experts returned and their weights, in either order."""
    a, b = product.src
    for full, other in ((a, b), (b, a)):
        if full.type != "F32" or other.type != "F32" or not full.is_contiguous or not other.is_contiguous:
            continue
        if full.ne == product.ne and other.ne == (1, *product.ne[1:]):
            return full, other
    return None


def _sums_up(nodes: Sequence[Node], weighted: Node, used: int, tokens: int) -> bool:
    """Whether these are a view of each expert's part and their sum."""
    shape = (weighted.ne[0], tokens, 1, 1)
    views: list[Node] = []
    sums: list[Node] = []
    for node in nodes:
        if node.op == "view":
            steps = node.nb[:2] == (weighted.nb[0], weighted.nb[2])
            if node.view is not weighted or node.ne != shape or not steps:
                return False
            if node.offset != len(views) * weighted.nb[1]:
                return False
            views.append(node)
        elif node.op == "add" and len(views) > len(sums) + 1:
            left = sums[-1] if sums else views[0]
            if node.src[0] is not left or node.src[1] is not views[len(sums) + 1]:
                return False
            sums.append(node)
        else:
            return False
    return len(views) == used and len(sums) == used - 1 and sums[-1].is_contiguous and sums[-1].ne == shape


def _choice(nodes: Sequence[Node], start: int, uses: Mapping[int, int]) -> int:
    """How many operations choose experts from here on; 0 if none do."""
    probabilities = _activation(nodes, start)
    if probabilities < 0:
        return 0

    def follows(index: int, op: str, *sources: int) -> bool:
        if index >= len(nodes) or nodes[index].op != op:
            return False
        given = nodes[index].src
        return all(given[place] is nodes[source] for place, source in enumerate(sources))

    at = probabilities + 1
    if not follows(at, "reshape", probabilities):
        return 0
    reshaped = at
    at += 1
    scores = probabilities
    if follows(at, "add", probabilities):
        scores = at
        at += 1
    if not (follows(at, "argsort", scores) and follows(at + 1, "view", at)):
        return 0
    chosen = at + 1
    if not follows(chosen + 1, "get_rows", reshaped, chosen):
        return 0
    last = chosen + 1
    scales = last + 1 < len(nodes)
    if scales and nodes[last + 1].op == "reshape":
        norm = all(
            follows(last + 1 + i, op, last + i) for i, op in enumerate(("reshape", "sum_rows", "clamp"))
        )
        scales = (
            norm and follows(last + 4, "div", last + 1, last + 3) and follows(last + 5, "reshape", last + 4)
        )
        last += 5 if scales else 0
    if scales and follows(last + 1, "scale", last):
        last += 1
    length = last + 1 - start
    outputs = (nodes[chosen], nodes[last])
    fits = _has_kernel(nodes[start], *outputs) and closed(nodes[start : last + 1], outputs, uses)
    return length if fits else 0


def _activation(nodes: Sequence[Node], start: int) -> int:
    """Where the probabilities are that begin here; -1 if there are none."""
    node = nodes[start]
    if node.op == "soft_max" or node.kind == "sigmoid":
        return start
    if node.kind == "softplus" and start + 1 < len(nodes):
        root = nodes[start + 1]
        if root.op == "sqrt" and root.src[0] is node:
            return start + 1
    return -1


def _has_kernel(gate: Node, chosen: Node, weights: Node) -> bool:
    count = chosen.nb[1] // chosen.nb[0]
    power = count & (count - 1) == 0 and count <= _MOST_COUNTED
    if not power and count not in _ODD_COUNTS:
        return False
    if not gate.src[0].is_contiguous or not weights.is_contiguous:
        return False
    return gate.op != "soft_max" or len(gate.src) == 1
