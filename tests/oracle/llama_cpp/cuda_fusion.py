"""What the CUDA backend keeps allocated longer because one kernel does several nodes of a mixture of experts.

`ggml/src/ggml-cuda/ggml-cuda.cu` (`ggml_backend_cuda_graph_optimize`), release 0.5.0: the choice of experts, and the
weighted sum of what they return.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from .ggml import Ggml, Graph, Tensor

_MAX_EXPERTS_SUMMED = 15
#: Numbers of experts that have a kernel beside the powers of two up to 512.
_ODD_EXPERTS = (288, 576)


def fused_lifetimes(ggml: Ggml, graph: Graph, kinds: Collection[str]) -> Iterator[tuple[int, int]]:
    """Pairs (tensor, node): the tensor must live until the node has been computed.

    Parameters
    ----------
    kinds
        Which fusions there are: `sum`, `choice`.
    """
    ops = ggml.ops
    gates = (ops["UNARY"], ops["SOFT_MAX"], ops["ARGSORT"])
    index = 0
    while index < graph.n_nodes:
        op = graph.node(index).op
        if op == ops["MUL"] and "sum" in kinds and (found := _weighted_sum(ggml, graph, index)):
            yield found.experts, found.result
            yield found.weights, found.result
            if found.scale is not None:
                yield found.scale, found.result
            index += found.nodes - 1
            op = graph.node(index).op
        if op in gates and "choice" in kinds and (count := _choice_of_experts(ggml, graph, index)):
            # The node behind the last fused one is what the backend names as the end.
            last = graph.nodes[index + count]
            for node in range(index, index + count):
                yield graph.nodes[node], last
                for source in graph.node(node).src:
                    if source:
                        yield source, last
            index += count - 1
        index += 1


@dataclass(frozen=True)
class _Sum:
    experts: int
    weights: int
    scale: int | None
    result: int
    nodes: int


def _weighted_sum(ggml: Ggml, graph: Graph, start: int) -> _Sum | None:
    """Multiplication of the experts' results with their weights, a view of each expert, and additions."""
    first = graph.node(start)
    single, plain = ggml.types["f32"], ggml.base.ggml_is_contiguous
    if first.type != single or not plain(first.address):
        return None
    weighted, scale, multiplications = first, None, 1
    parts = _factors(ggml, first)
    if start + 1 < graph.n_nodes:
        second = graph.node(start + 1)
        if second.op == ggml.ops["MUL"] and second.type == single and plain(second.address):
            outer = _factors(ggml, second)
            if outer and parts and outer[0] == first.address:
                weighted, scale, multiplications = second, parts[1], 2
                parts = (parts[0], outer[1])
    if parts is None:
        return None
    used, tokens = weighted.ne[1], weighted.ne[2] * weighted.ne[3]
    if not 2 <= used <= _MAX_EXPERTS_SUMMED or tokens <= 0:
        return None
    nodes = 2 * used + multiplications - 1
    if start + nodes > graph.n_nodes:
        return None
    if not _views_and_additions(ggml, graph, start + multiplications, start + nodes, weighted, tokens):
        return None
    last = start + nodes - 1
    if not _fusible(ggml, graph, start, [graph.node(start + i).op for i in range(nodes)], [last]):
        return None
    return _Sum(parts[0], parts[1], scale, graph.nodes[last], nodes)


def _factors(ggml: Ggml, product: Tensor) -> tuple[int, int] | None:
    """(Experts' results, their weights) of a multiplication, in either order."""
    single, base = ggml.types["f32"], ggml.base
    found = [product.source(0), product.source(1)]
    for full, other in (found, found[::-1]):
        if full is None or other is None:
            continue
        if any(one.type != single or not base.ggml_is_contiguous(one.address) for one in (full, other)):
            continue
        if not base.ggml_are_same_shape(full.address, product.address):
            continue
        if other.ne[0] == 1 and list(other.ne[1:]) == list(product.ne[1:]):
            return full.address, other.address
    return None


def _views_and_additions(
    ggml: Ggml, graph: Graph, start: int, end: int, weighted: Tensor, tokens: int
) -> bool:
    single = ggml.types["f32"]
    views: list[int] = []
    previous, additions = 0, 0
    for index in range(start, end):
        node = graph.node(index)
        if node.op == ggml.ops["VIEW"]:
            expert = len(views)
            if (
                expert >= weighted.ne[1]
                or node.src[0] != weighted.address
                or node.view_src != weighted.address
                or node.type != single
                or list(node.ne) != [weighted.ne[0], tokens, 1, 1]
                or (node.nb[0], node.nb[1]) != (weighted.nb[0], weighted.nb[2])
                or node.view_offs != expert * weighted.nb[1]
            ):
                return False
            views.append(node.address)
            continue
        if node.op != ggml.ops["ADD"] or len(views) < 2 or additions + 1 >= len(views):
            return False
        left = views[0] if additions == 0 else previous
        if (node.src[0], node.src[1], node.type) != (left, views[additions + 1], single):
            return False
        previous = node.address
        additions += 1
    if len(views) != weighted.ne[1] or additions != weighted.ne[1] - 1:
        return False
    result = Tensor.from_address(previous)
    shape = [weighted.ne[0], tokens, 1, 1]
    return bool(ggml.base.ggml_is_contiguous(previous)) and list(result.ne) == shape


def _choice_of_experts(ggml: Ggml, graph: Graph, start: int) -> int:
    """Number of nodes of a fused choice of experts that starts here; 0 if there is none.

    The other form, which sorts before it takes the softmax, is not given longer lives.
    """
    names = _activation(ggml, graph, start)
    if not names:
        return 0
    at = start + len(names)
    probabilities = at - 1

    def node(index: int) -> Tensor | None:
        return graph.node(index) if index < graph.n_nodes else None

    def follows(index: int, op: str, *sources: int) -> bool:
        found = node(index)
        if found is None or found.op != ggml.ops[op]:
            return False
        return all(found.src[i] == graph.nodes[source] for i, source in enumerate(sources))

    if not follows(at, "RESHAPE", at - 1):
        return 0
    reshaped = at
    names.append("RESHAPE")
    at += 1
    biased = follows(at, "ADD", at - 2)
    if biased:
        names.append("ADD")
        at += 1
    if not follows(at, "ARGSORT", at - 1 if biased else at - 2):
        return 0
    at += 1
    if not follows(at, "VIEW", at - 1):
        return 0
    at += 1
    if not follows(at, "GET_ROWS", reshaped, at - 1):
        return 0
    at += 1
    names += ["ARGSORT", "VIEW", "GET_ROWS"]
    chosen = probabilities + (4 if biased else 3)
    scaled = at < graph.n_nodes
    if scaled and graph.node(at).op == ggml.ops["RESHAPE"]:
        norm = ("RESHAPE", "SUM_ROWS", "CLAMP")
        if all(follows(at + i, op, at + i - 1) for i, op in enumerate(norm)):
            if follows(at + 3, "DIV", at, at + 2) and follows(at + 4, "RESHAPE", at + 3):
                names += [*norm, "DIV", "RESHAPE"]
                at += 5
            else:
                scaled = False
        else:
            scaled = False
    if scaled and follows(at, "SCALE", at - 1):
        names.append("SCALE")
    last = start + len(names) - 1
    if not _fusible(ggml, graph, start, [ggml.ops[name] for name in names], [chosen, last]):
        return 0
    return len(names) if _has_kernel(ggml, graph, start, chosen, last) else 0


def _activation(ggml: Ggml, graph: Graph, start: int) -> list[str]:
    first = graph.node(start)
    if first.op == ggml.ops["SOFT_MAX"]:
        return ["SOFT_MAX"]
    if first.op != ggml.ops["UNARY"]:
        return []
    name = ggml.unary_names[ggml.base.ggml_get_unary_op(first.address)]
    if name == "SIGMOID":
        return ["UNARY"]
    if name == "SOFTPLUS" and start + 1 < graph.n_nodes:
        second = graph.node(start + 1)
        if second.op == ggml.ops["SQRT"] and second.src[0] == first.address:
            return ["UNARY", "SQRT"]
    return []


def _has_kernel(ggml: Ggml, graph: Graph, start: int, chosen: int, last: int) -> bool:
    gate, ids, weights = graph.node(start), graph.node(chosen), graph.node(last)
    experts = ids.nb[1] // ids.nb[0]
    if (experts & (experts - 1) or experts > 512) and experts not in _ODD_EXPERTS:
        return False
    plain = ggml.base.ggml_is_contiguous
    if not plain(gate.src[0]) or not plain(weights.address):
        return False
    if gate.op == ggml.ops["SOFT_MAX"]:
        one = 0x3F800000  # 1.0: no scale, and no bias behind it
        return (gate.op_params[0], gate.op_params[1]) == (one, 0) and not gate.src[1] and not gate.src[2]
    return True


def _fusible(ggml: Ggml, graph: Graph, start: int, ops: Sequence[int], outputs: Sequence[int]) -> bool:
    """`ggml_can_fuse_subgraph`: nothing outside needs what is inside, apart from the outputs."""
    count = len(ops)
    if start + count > graph.n_nodes:
        return False
    numbers = (c.c_int * count)(*range(start, start + count))
    kinds, results = (c.c_int * count)(*ops), (c.c_int * len(outputs))(*outputs)
    return bool(
        ggml.base.ggml_can_fuse_subgraph_ext(
            c.addressof(graph),
            c.addressof(numbers),
            count,
            c.addressof(kinds),
            c.addressof(results),
            len(outputs),
        )
    )
