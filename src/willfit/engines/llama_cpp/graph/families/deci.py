"""Deci, Nemotron-NAS: layers without attention, or without an MLP (`deci.cpp`)."""

from __future__ import annotations

from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Style
from willfit.engines.llama_cpp.graph.feed_forward import dense
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node


class Deci(Decoder):
    """A decoder whose layers may lack parts."""

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        heads = net.meta.integer("attention.head_count", layer=net.layer)
        kv_heads = net.meta.integer("attention.head_count_kv", heads, layer=net.layer)
        y = x
        if heads:
            given = self.normed(x, "attn_norm")
            y = self.attention(given) if kv_heads else net.linear(net.needed("attn_output.weight"), given)
        before = x
        if net.is_last:
            y, before = net.get_rows(y, self.rows), net.get_rows(before, self.rows)
        if not net.meta.integer("feed_forward_length", layer=net.layer):
            return x  # what attention gives is not used
        middle = net.add(y, before) if heads else y
        return net.add(dense(net, self.normed(middle, "ffn_norm")), middle)


def build(net: Network) -> None:
    """The graph of such a model."""
    Deci(net, Style(factors=True)).build()
