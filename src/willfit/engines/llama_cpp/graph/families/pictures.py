"""Decoders that see pictures in a way of their own (`qwen3vl.cpp`, `qwen3vlmoe.cpp`, `chameleon.cpp`)."""

from __future__ import annotations

from collections.abc import Hashable

from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Style
from willfit.engines.llama_cpp.graph.feed_forward import dense
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node

#: Logits of Chameleon that stand for pictures: from one token to before another.
_PICTURE_TOKENS = 8196 - 4
_FIRST_PICTURE_TOKEN = 4


class Deepstack(Decoder):
    """The first layers add vectors of pictures."""

    def trait(self) -> Hashable:
        """See `Decoder.trait`."""
        return self.net.layer < self.net.deepstack

    def behind(self, x: Node) -> Node:
        """See `Decoder.behind`."""
        net = self.net
        return (
            net.add(x, net.deep_vectors(net.layer + 1))
            if net.era.selects_input and net.layer < net.deepstack
            else x
        )

    def logits(self, x: Node) -> Node:
        """See `Decoder.logits`: tokens that the head cannot say have none."""
        net = self.net
        y = super().logits(x)
        missing = net.weights["token_embd.weight"].ne[1] - y.ne[0]
        if missing <= 0 or net.meta.architecture == "qwen3vlmoe":
            return y
        one = net.scale(net.view(net.weights["output_norm.weight"], (1,)))
        return net.concat(net.repeat(one, missing, y.ne[1], 1, 1), y, 0)


class Chameleon(Decoder):
    """Norms before or behind each part, and no logits of pictures."""

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        behind = net.meta.boolean("swin_norm", False)
        y = self.attention(x if behind else self.normed(x, "attn_norm"))
        if net.is_last:
            y, x = net.get_rows(y, self.rows), net.get_rows(x, self.rows)
        middle = net.add(self.normed(y, "attn_norm") if behind else y, x)
        y = dense(net, middle if behind else self.normed(middle, "ffn_norm"))
        return net.add(self.normed(y, "ffn_norm") if behind else y, middle)

    def normed_head(self, x: Node, which: str) -> Node:
        """See `Decoder.normed_head`."""
        net = self.net
        weight = net.weight(f"attn_{which}_norm.weight")
        return x if weight is None else net.normed(x, weight, net.bias(f"attn_{which}_norm"), "norm")

    def logits(self, x: Node) -> Node:
        """See `Decoder.logits`."""
        net = self.net
        y = super().logits(x)
        none = net.clamp(net.new("F32", _PICTURE_TOKENS))
        return net.set(y, none, y.nb[0] * _FIRST_PICTURE_TOKEN)


def build(net: Network) -> None:
    """The graph of one of these models."""
    (Chameleon if net.meta.architecture == "chameleon" else Deepstack)(net, Style()).build()
