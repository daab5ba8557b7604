"""The gated delta rule (`delta-net-base.cpp`)."""

from __future__ import annotations

from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.recurrent import store
from willfit.engines.llama_cpp.graph.tensor import Node


def delta_rule(net: Network, q: Node, k: Node, v: Node, gate: Node, beta: Node, state: Node) -> Node:
    """Outputs, width x heads x tokens x sequences; the new states are kept.

    Parameters
    ----------
    q, k, v
        Width x heads x tokens x sequences.
    gate, beta
        Decay and strength of each head, or the decay of each of its channels.
    state
        Width x width x heads x sequences.
    """
    width, heads, tokens, sequences = v.ne
    snapshots = net.snapshots
    y = net.gated_delta_net(q, k, v, gate, beta, state, snapshots)
    size = y.nb[0]
    outputs = net.view(y, v.ne, (size * width, size * width * heads, size * width * heads * tokens))
    behind = size * width * heads * tokens * sequences
    each = width * width * heads
    if snapshots == 1:
        steps = (size * width, size * width * width, size * each)
        store(net, net.view(y, (width, width, heads, sequences), steps, behind))
        return outputs
    cache = net.cache.s
    assert cache is not None
    written = min(tokens, snapshots)
    new = net.view(y, (each, sequences, written), (size * each, size * each * sequences), behind)
    place = net.view(cache, (each, sequences, written), (cache.nb[1], cache.nb[1] * net.batch.cached))
    net.expand(net.cpy(new, place))
    return outputs
