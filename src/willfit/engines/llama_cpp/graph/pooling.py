"""From vectors of tokens to vectors of texts, and to scores (`llama-graph.cpp: build_pooling, build_dense_out`)."""

from __future__ import annotations

from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node

#: Rerankers whose scores are probabilities.
_PROBABILITIES = frozenset(("qwen3", "qwen3vl"))
#: `llama_pooling_type` of the mean.
_MEAN = 1


def pool(net: Network) -> None:
    """Append what makes vectors or scores, if they are wanted."""
    if not net.batch.embeddings or net.result is None:
        return
    x = _pooled(net, net.result)
    net.expand(x)
    dense = [net.outer(name) for name in ("dense_2.weight", "dense_2.bias", "dense_3.weight")]
    for weight, bias in zip(dense, (False, True, False), strict=True):
        if weight is not None:
            x = net.add(x, weight) if bias else net.mul_mat(weight, x)
    x.is_output = True
    net.expand(x)


def _pooled(net: Network, x: Node) -> Node:
    pooling = net.batch.pooling
    if pooling == "none":
        return x
    if pooling == "mean":
        return _mean(net, x)
    if pooling != "rank":
        return _chosen(net, x)
    default = _MEAN if net.meta.architecture == "modern-bert" else 0
    y = _mean(net, x) if net.value("classifier.pooling_type", default) == _MEAN else _chosen(net, x)
    return _scores(net, y)


def _mean(net: Network, x: Node) -> Node:
    """The mean over each sequence's tokens."""
    weights = net.input("F32", net.batch.tokens, net.batch.sequences, name="mean")
    return net.mul_mat(net.cont(net.transpose(x)), weights)


def _chosen(net: Network, x: Node) -> Node:
    """The vector of one token of each sequence."""
    return net.get_rows(x, net.input("I32", net.batch.sequences, name="chosen tokens"))


def _scores(net: Network, x: Node) -> Node:
    """What a classifier makes of vectors."""
    weight, bias = net.outer("cls.weight"), net.outer("cls.bias")
    if weight is not None:
        x = net.mul_mat(weight, x)
        x = net.add(x, bias) if bias is not None else x
        x = net.unary("gelu" if net.meta.architecture == "modern-bert" else "tanh", x)
        norm = net.outer("cls.norm.weight")
        x = net.normed(x, norm, kind="norm") if norm is not None else x
    head, bias = net.outer("cls.output.weight"), net.outer("cls.output.bias")
    if head is not None:
        x = net.mul_mat(head, x)
        x = net.add(x, bias) if bias is not None else x
    return net.soft_max(x) if net.meta.architecture in _PROBABILITIES else x
