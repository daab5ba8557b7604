"""What backends ask about operations that one kernel could compute at once (`ggml-impl.h`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from willfit.engines.llama_cpp.graph.tensor import Node

#: A sequence of operations that could be one kernel.
Pattern = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Optimized:
    """What a backend makes of the operations of one split.

    Attributes
    ----------
    nodes
        In the order in which they are computed.
    kept
        Pairs (tensor, until): the tensor is kept until a later operation has been computed.
    """

    nodes: Sequence[Node]
    kept: Sequence[tuple[Node, Node]] = ()


def closed(nodes: Sequence[Node], outputs: Sequence[Node], uses: Mapping[int, int]) -> bool:
    """Whether nothing outside reads what is inside, apart from the outputs (`ggml_can_fuse_subgraph`).

    Parameters
    ----------
    uses
        How often each tensor is read in the whole graph, by its identity.
    """
    inside = {id(node) for node in nodes}
    read: dict[int, int] = {}
    for node in nodes:
        for source in node.src:
            read[id(source)] = read.get(id(source), 0) + 1
    for node in nodes:
        if any(node is output for output in outputs):
            continue
        if node.is_output or read.get(id(node), 0) != uses.get(id(node), 0):
            return False
        view = node.view
        if (
            view is not None
            and id(view) not in inside
            and not (view.buffer is not None and view.buffer.weights)
        ):
            return False
    return True


def read_from_outside(nodes: Sequence[Node]) -> list[Node]:
    """What a sequence of operations reads that an earlier one of them did not make, each once."""
    seen: set[int] = set()
    found = []
    for node in nodes:
        for source in node.src:
            if id(source) not in seen:
                seen.add(id(source))
                found.append(source)
        seen.add(id(node))
    return found
