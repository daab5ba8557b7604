"""Recurrent states in a graph (`llama-graph.cpp: build_rs`, `delta-net-base.cpp: build_conv_state`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node, row_bytes


@dataclass(frozen=True, slots=True)
class StateInputs:
    """Which states a batch goes on from.

    Attributes
    ----------
    computed, moved
        Rows of the sequences in the batch, and of others that only change their place.
    """

    computed: Node
    moved: Node


def state_inputs(net: Network) -> StateInputs:
    """The inputs of all layers' states."""
    rows = net.batch.sequences
    copied = net.input("I32", net.batch.cached, name="states")
    others = net.view(copied, (net.batch.cached - rows,), (), copied.nb[0] * rows)
    return StateInputs(net.view(copied, (rows,)), others)


def kept(
    net: Network, inputs: StateInputs, states: Node, read: Callable[[Node, Node], Node] | None = None
) -> Node:
    """The states of the batch's sequences, width x sequences; those that begin are cleared.

    Parameters
    ----------
    read
        What reads them instead: an operation on all states, width x rows, that is told which rows.
    """
    width, rows = states.ne[:2]
    flat = net.reshape(states, width, rows)
    net.expand(net.scale_in_place(net.view(flat, (width,))))
    found = (read or net.get_rows)(flat, inputs.computed)
    net.expand(found)
    moved = net.get_rows(flat, inputs.moved)
    sequences = net.batch.sequences
    others = (width, net.batch.cached - sequences)
    behind = net.view(states, others, (states.nb[1],), states.nb[1] * sequences)
    net.expand(net.cpy(moved, behind))
    return found


def tokens_of_each(net: Network) -> int:
    """Tokens that each sequence has in the batch."""
    return net.batch.tokens // net.batch.sequences


def by_sequence(net: Network, x: Node) -> Node:
    """Width x tokens of a sequence x sequences."""
    return net.reshape(x, x.ne[0], tokens_of_each(net), net.batch.sequences)


def behind_earlier(net: Network, inputs: StateInputs, x: Node) -> Node:
    """What a short convolution reads: inputs kept from before, then new ones; the last of them are kept.

    Parameters
    ----------
    x
        Channels x tokens x sequences.

    Returns
    -------
    Node
        Tokens x channels x sequences.
    """
    cache = net.cache.r
    assert cache is not None
    channels, sequences = x.ne[0], x.ne[2]
    width = cache.ne[0] // channels
    before = net.reshape(kept(net, inputs, cache), width, channels, sequences)
    given = net.concat(before, net.transpose(x), 0)
    snapshots = net.snapshots
    for index in range(1, snapshots + 1):
        start = max(0, given.ne[0] - width - snapshots + index)
        last = net.view(given, (width, channels, sequences), given.nb[1:3], start * given.nb[0])
        slot = (snapshots - index) * net.batch.cached
        row = row_bytes(cache.type, cache.ne[0])
        net.expand(net.cpy(last, net.view(cache, (cache.ne[0], sequences), (cache.nb[1],), slot * row)))
    return given


def store(net: Network, state: Node) -> None:
    """Keep new states, which lie one after another."""
    cache = net.cache.s
    assert cache is not None
    sequences = net.batch.sequences
    net.expand(net.cpy(state, net.view(cache, (cache.ne[0], sequences), (cache.nb[1],))))
