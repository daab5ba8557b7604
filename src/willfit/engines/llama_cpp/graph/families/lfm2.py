"""LFM2: short convolutions in most layers, attention in the rest (`lfm2.cpp`)."""

from __future__ import annotations

from dataclasses import replace

from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Experts, Style
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.recurrent import behind_earlier, by_sequence, state_inputs
from willfit.engines.llama_cpp.graph.tensor import Node

_STYLE = Style(experts=Experts(stated=True))


class ShortConvolutions(Decoder):
    """LFM2."""

    def __init__(self, net: Network) -> None:
        super().__init__(net, replace(_STYLE, head=not net.batch.embeddings))
        self.states = state_inputs(net)

    def start(self) -> Node:
        """See `Decoder.start`."""
        x = self.net.embedded()
        if self.net.era.embeds_first:
            self.net.expand(x)
        return x

    def normed(self, x: Node, stem: str, pinned: bool = True) -> Node:
        """See `Decoder.normed`: files name the last norm as others name that of embeddings."""
        newer = stem != "output_norm" or self.net.outer("output_norm.weight") is not None
        return super().normed(x, stem if newer else "token_embd_norm", pinned)

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        y = self.attention(self.normed(x, "attn_norm"))
        if net.is_last:
            y, x = net.get_rows(y, self.rows), net.get_rows(x, self.rows)
        middle = net.add(x, y)
        return net.add(middle, self.feed_forward(self.normed(middle, "ffn_norm")))

    def attention(self, x: Node) -> Node:
        """See `Decoder.attention`."""
        return self.convolved(x) if self.net.cache.r is not None else super().attention(x)

    def convolved(self, x: Node) -> Node:
        """A gated short convolution with its projections."""
        net = self.net
        y = net.linear(net.needed("shortconv.in_proj.weight"), by_sequence(net, x))
        width = y.ne[0] // 3
        b, c, inner = (
            net.view(y, (width, *y.ne[1:3]), y.nb[1:3], part * width * y.nb[0]) for part in range(3)
        )
        given = behind_earlier(net, self.states, net.mul(b, inner))
        y = net.mul(c, net.ssm_conv(given, net.needed("shortconv.conv.weight")))
        y = net.linear(net.needed("shortconv.out_proj.weight"), y)
        return net.reshape(y, y.ne[0], net.batch.tokens)


def build(net: Network) -> None:
    """Build the graph."""
    ShortConvolutions(net).build()
