"""The plain decoder: norm, attention, norm, MLP or experts (`src/models/llama.cpp`, `qwen2.cpp`, `qwen3.cpp`, ...)."""

from __future__ import annotations

from willfit.architectures.mixers import Attention
from willfit.engines.llama_cpp.graph.attention import AttentionInputs, attend, cache_inputs
from willfit.engines.llama_cpp.graph.feed_forward import dense, experts
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node, row_bytes


def queries_keys_values(net: Network, x: Node) -> tuple[Node, Node, Node]:
    """The three projections, as width x heads x tokens: views of one fused matrix's result, or reshaped ones."""
    mixer = net.attention()
    assert isinstance(mixer, Attention)
    tokens = x.ne[1]
    q, k, v = (
        (mixer.head_dim, mixer.heads),
        (mixer.head_dim, mixer.kv_heads),
        (mixer.value_dim, mixer.kv_heads),
    )
    if net.weight("attn_qkv.weight") is not None:
        fused = net.projected("attn_qkv", x)
        offset, parts = 0, []
        for width, count in (q, k, v):
            steps = (row_bytes(fused.type, width), fused.nb[1])
            parts.append(net.view(fused, (width, count, tokens), steps, row_bytes(fused.type, offset)))
            offset += width * count
        return parts[0], parts[1], parts[2]
    made = [net.projected(f"attn_{name}", x) for name in "qkv"]
    shaped = [net.reshape(y, *shape, tokens) for y, shape in zip(made, (q, k, v), strict=True)]
    return shaped[0], shaped[1], shaped[2]


def build(net: Network) -> None:
    """The graph of a Llama-like decoder."""
    x = net.embedded()
    positions = net.positions()
    inputs = cache_inputs(net)
    rows = net.output_rows()
    for index in range(len(net.layers)):
        net.layer = index
        x = _layer(net, x, positions, inputs, rows if index == len(net.layers) - 1 else None)
    net.finish(x)


def _layer(net: Network, x: Node, positions: Node, inputs: AttentionInputs, rows: Node | None) -> Node:
    before = x
    y = net.layer_norm(x, "attn_norm")
    q, k, v = queries_keys_values(net, y)
    factors = net.outer("rope_freqs.weight")
    if net.weight("attn_q_norm.weight") is not None:
        q = net.rope(net.layer_norm(q, "attn_q_norm"), positions, factors)
        k = net.rope(net.layer_norm(k, "attn_k_norm"), positions, factors)
    else:
        q = net.rope(q, positions, factors)
        k = net.rope(k, positions, factors)
    y = attend(net, inputs.of(net), q, k, v)
    if rows is not None:
        y, before = net.get_rows(y, rows), net.get_rows(before, rows)
    middle = net.add(y, before)
    y = net.layer_norm(middle, "ffn_norm")
    y = experts(net, y) if net.weight("ffn_gate_inp.weight") is not None else dense(net, y)
    return net.add(y, middle)
