"""Hyper-connections: parallel residual streams that layers mix to one and add to (`deepseek4.cpp: build_hc_pre`)."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node


@dataclass(frozen=True, slots=True)
class Mixed:
    """What a layer reads of the streams.

    Attributes
    ----------
    x
        Width x tokens.
    shares
        What each stream gets of the layer's result: streams x tokens.
    mix
        How the streams are mixed with each other: streams x streams x tokens.
    """

    x: Node
    shares: Node
    mix: Node


def widened(net: Network, x: Node) -> Node:
    """The same in all streams: width x streams x tokens."""
    width, tokens = x.ne[:2]
    count = net.meta.integer("hyper_connection.count")
    return net.repeat(net.reshape(x, width, 1, tokens), width, count, tokens, 1)


def mixed(net: Network, x: Node, stem: str) -> Mixed:
    """The streams mixed to one, by the current layer's tensors `stem`."""
    width, count, tokens = x.ne[:3]
    scale, base = net.needed(f"{stem}_scale.weight"), net.needed(f"{stem}_base.weight")
    flat = net.rms_norm(net.reshape(x, width * count, tokens))
    mixes = net.mul_mat(net.needed(f"{stem}_fn.weight"), flat)
    weights = net.scale(_affine(net, mixes, scale, base, 0, count))
    shares = net.scale(_affine(net, mixes, scale, base, 1, count))
    mix = net.stream_mix(mixes, scale, base)
    return Mixed(net.weighted_streams(x, weights), shares, mix)


def _affine(net: Network, mixes: Node, scale: Node, base: Node, part: int, count: int) -> Node:
    """Sigmoids of a part of the mixes, scaled and shifted."""
    first = part * count * mixes.nb[0]
    y = net.view(mixes, (count, mixes.ne[1]), mixes.nb[1:2], first)
    y = net.mul(y, net.view(scale, (1,), (), part * scale.nb[0]))
    return net.unary("sigmoid", net.add(y, net.view(base, (count,), (), part * count * base.nb[0])))


def spread(net: Network, y: Node, x: Node, parts: Mixed) -> Node:
    """The streams with what a layer computed of their mix."""
    return net.spread_streams(y, x, parts.shares, parts.mix)


def collapsed(net: Network, x: Node, stem: str) -> Node:
    """The streams as one behind the last layer, stream by stream."""
    width, count, tokens = x.ne[:3]
    flat = net.rms_norm(net.reshape(x, width * count, tokens))
    y = net.mul_mat(net.weights[f"{stem}_fn.weight"], flat)
    y = net.add(net.mul(y, net.weights[f"{stem}_scale.weight"]), net.weights[f"{stem}_base.weight"])
    weights = net.scale(net.unary("sigmoid", y))
    total: Node | None = None
    for stream in range(count):
        part = net.view(x, (width, tokens), (x.nb[2],), stream * x.nb[1])
        share = net.view(weights, (1, tokens), (weights.nb[1],), stream * weights.nb[0])
        part = net.mul(part, share)
        total = part if total is None else net.add(total, part)
    assert total is not None
    return total
