"""Queries, keys and values of a layer (`llama-graph.cpp: build_qkv`)."""

from __future__ import annotations

from willfit.architectures.mixers import Attention
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node, row_bytes

Triple = tuple[Node, Node, Node]


def queries_keys_values(net: Network, x: Node) -> Triple:
    """The three projections, as width x heads x tokens: views of one fused matrix's result, or reshaped ones."""
    shapes = _shapes(net)
    fused = _fused(net, x, clamps=True)
    if fused is None:
        return split_heads(net, tuple(_clamped(net, net.projected(f"attn_{name}", x)) for name in "qkv"))
    era = net.era
    parts, offset = [], 0
    for (width, count), viewed in zip(
        shapes, (era.fused_views, era.fused_views, era.fused_value_views), strict=True
    ):
        start = row_bytes(fused.type, offset)
        if viewed:
            steps = (row_bytes(fused.type, width), fused.nb[1])
            parts.append(net.view(fused, (width, count, x.ne[1]), steps, start))
        else:
            part = net.cont(net.view(fused, (width * count, x.ne[1]), (fused.nb[1],), start))
            parts.append(net.reshape(part, width, count, x.ne[1]))
        offset += width * count
    return parts[0], parts[1], parts[2]


def unsplit(net: Network, x: Node) -> Triple:
    """The three projections with the heads side by side; parts of a fused matrix's result are copied."""
    fused = _fused(net, x, clamps=False)
    if fused is None:
        q, k, v = (net.projected(f"attn_{name}", x) for name in "qkv")
        return q, k, v
    parts, offset = [], 0
    for width, count in _shapes(net):
        part = net.view(fused, (width * count, x.ne[1]), (fused.nb[1],), row_bytes(fused.type, offset))
        parts.append(net.cont(part))
        offset += width * count
    return parts[0], parts[1], parts[2]


def split_heads(net: Network, parts: tuple[Node, ...]) -> Triple:
    """Queries, keys and values as width x heads x tokens."""
    q, k, v = (net.reshape(y, *shape, y.ne[1]) for y, shape in zip(parts, _shapes(net), strict=True))
    return q, k, v


def merged_heads(net: Network, x: Node) -> Node:
    """The heads side by side again."""
    return net.reshape(x, x.ne[0] * x.ne[1], x.ne[2])


def _shapes(net: Network) -> tuple[tuple[int, int], ...]:
    mixer = net.attention()
    assert isinstance(mixer, Attention)
    keys, values = (mixer.head_dim, mixer.kv_heads), (mixer.value_dim, mixer.kv_heads)
    return (mixer.head_dim, mixer.heads), keys, values


def _fused(net: Network, x: Node, clamps: bool) -> Node | None:
    """The result of one matrix for all three; None if there are three."""
    weight = net.weight("attn_qkv.weight")
    if weight is None:
        return None
    y = net.linear(weight, x, net.weight("attn_qkv.scale"))
    bias = net.bias("attn_qkv")
    q, k, v = (net.bias(f"attn_{name}") for name in "qkv")
    if bias is None and q is not None and k is not None and v is not None:
        bias = net.concat(net.concat(q, k, 0), v, 0)
    if bias is not None:
        y = net.add(y, bias)
    return _clamped(net, y) if clamps else y


def _clamped(net: Network, x: Node) -> Node:
    return net.clamp(x) if net.value("attention.clamp_kqv") > 0 else x
