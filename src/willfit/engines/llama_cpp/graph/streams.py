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
        How the streams are mixed with each other: streams x streams x tokens; None if they are not.
    """

    x: Node
    shares: Node
    mix: Node | None


def widened(net: Network, x: Node) -> Node:
    """The same in all streams: width x streams x tokens."""
    width, tokens = x.ne[:2]
    count = net.meta.integer("hyper_connection.count")
    return net.repeat(net.reshape(x, width, 1, tokens), width, count, tokens, 1)


def mixed(net: Network, x: Node, stem: str, mixes: bool = True) -> Mixed:
    """The streams mixed to one, by the current layer's tensors `stem`.

    Parameters
    ----------
    mixes
        The streams are mixed with each other, too; else all of it is computed stream by stream, from copies.
    """
    width, count, tokens = x.ne[:3]
    scale, base = net.needed(f"{stem}_scale.weight"), net.needed(f"{stem}_base.weight")
    flat = net.rms_norm(net.reshape(x, width * count, tokens))
    y = net.mul_mat(net.needed(f"{stem}_fn.weight"), flat)
    weights = net.scale(_affine(net, y, scale, base, 0, count))
    shares = net.scale(_affine(net, y, scale, base, 1, count))
    if mixes:
        return Mixed(net.weighted_streams(x, weights), shares, net.stream_mix(y, scale, base))
    return Mixed(_summed(net, x, weights, copies=True), net.scale(shares), None)


def _affine(net: Network, mixes: Node, scale: Node, base: Node, part: int, count: int) -> Node:
    """Sigmoids of a part of the mixes, scaled and shifted."""
    first = part * count * mixes.nb[0]
    y = net.view(mixes, (count, mixes.ne[1]), mixes.nb[1:2], first)
    y = net.mul(y, net.view(scale, (1,), (), part * scale.nb[0]))
    return net.unary("sigmoid", net.add(y, net.view(base, (count,), (), part * count * base.nb[0])))


def _summed(net: Network, x: Node, weights: Node, copies: bool) -> Node:
    """A weighted sum of the streams, one after another."""
    width, count, tokens = x.ne[:3]
    if copies:
        x = net.cast(x, "F32")
    total: Node | None = None
    for stream in range(count):
        part = net.view(x, (width, tokens), (x.nb[2],), stream * x.nb[1])
        part = net.mul(part, net.view(weights, (1, tokens), (weights.nb[1],), stream * weights.nb[0]))
        total = part if total is None else net.add(total, part)
    assert total is not None
    return net.cast(total, "F32") if copies else total


def spread(net: Network, y: Node, x: Node, parts: Mixed) -> Node:
    """The streams with what a layer computed of their mix."""
    if parts.mix is not None:
        return net.spread_streams(y, x, parts.shares, parts.mix)
    width, count, tokens = x.ne[:3]
    y, shares, x = (net.cast(one, "F32") for one in (y, parts.shares, x))
    total: Node | None = None
    for stream in range(count):
        before = net.view(x, (width, tokens), (x.nb[2],), stream * x.nb[1])
        share = net.view(shares, (1, tokens), (shares.nb[1],), stream * shares.nb[0])
        part = net.reshape(net.add(before, net.mul(y, share)), width, 1, tokens)
        total = part if total is None else net.concat(total, part, 1)
    assert total is not None
    return net.cast(total, "F32")


def collapsed(net: Network, x: Node, stem: str, copies: bool = False) -> Node:
    """The streams as one behind the last layer, stream by stream, from copies if so."""
    width, count, tokens = x.ne[:3]
    flat = net.rms_norm(net.reshape(x, width * count, tokens))
    y = net.mul_mat(net.weights[f"{stem}_fn.weight"], flat)
    y = net.add(net.mul(y, net.weights[f"{stem}_scale.weight"]), net.weights[f"{stem}_base.weight"])
    return _summed(net, x, net.scale(net.unary("sigmoid", y)), copies)
