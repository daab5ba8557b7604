"""Embeddings that each layer has of its own, of Gemma 3n and Gemma 4 (`gemma3n.cpp`, `gemma4.cpp`)."""

from __future__ import annotations

from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node


def per_layer_inputs(net: Network, x: Node, width: int) -> Node:
    """What layers are given beside their input, as width x tokens x layers.

    Parameters
    ----------
    x
        What goes into the first layer.
    width
        Of a layer's embeddings.
    """
    tokens, count = net.batch.tokens, len(net.layers)
    ids = net.input("I32", tokens, name="tokens of layers")
    rows = net.get_rows(net.weights["per_layer_token_embd.weight"], ids)
    rows = net.scale(net.reshape(rows, width, count, tokens))
    if net.era.per_layer_first:
        net.expand(rows)
    made = net.scale(net.mul_mat(net.weights["per_layer_model_proj.weight"], x))
    made = net.reshape(made, width, count, tokens)
    made = net.normed(made, net.weights["per_layer_proj_norm.weight"], pinned=False)
    return net.cont(net.permute(net.scale(net.add(made, rows)), 0, 2, 1, 3))


def slice_of(net: Network, x: Node, index: int) -> Node:
    """One of the matrices that a tensor has in its third dimension."""
    return net.view(x, x.ne[:2], x.nb[1:2], index * x.ne[0] * x.ne[1] * x.nb[0])
