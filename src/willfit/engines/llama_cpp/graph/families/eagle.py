"""EAGLE-3 heads: one layer that drafts from vectors of three of the model's layers (`eagle3.cpp`)."""

from __future__ import annotations

from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Style
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.queries import split_heads
from willfit.engines.llama_cpp.graph.tensor import Node


class Eagle(Decoder):
    """A decoder that reads embeddings of tokens beside vectors; a table or a head that it lacks is the model's."""

    def build(self) -> None:
        """See `Decoder.build`."""
        net = self.net
        tokens = net.input("I32", net.batch.tokens, name="tokens")
        given = net.input("F32", net.hidden, net.batch.tokens, name="vectors")
        net.layer = 0
        rows = self.normed(net.get_rows(net.weights["token_embd.weight"], tokens), "attn_norm")
        vectors = self.normed(given, "attn_norm_2", pinned=False)
        before = vectors if net.meta.boolean("norm_before_residual", False) else given
        middle = net.add(self.attention(net.concat(rows, vectors, 0)), before)
        x = net.add(self.feed_forward(self.normed(middle, "ffn_norm")), middle)
        x.is_output = True
        net.layer = -1
        result = self.normed(x, "output_norm")
        logits = self.spread(net.linear(net.weights["output.weight"], result))
        logits.is_output = True
        net.logits = logits
        net.expand(logits)

    def projections(self, x: Node) -> tuple[Node, Node, Node]:
        """See `Decoder.projections`."""
        net = self.net
        q, k, v = (net.linear(net.needed(f"attn_{name}.weight"), x) for name in "qkv")
        return split_heads(net, (q, k, v))

    def spread(self, x: Node) -> Node:
        """Logits of the model's vocabulary, of which the head may have a part."""
        net = self.net
        places = net.outer("d2t")
        if places is None:
            return x
        count, rows = net.weights["token_embd.weight"].ne[1], x.ne[1]
        logits = net.fill(Node("none", "F32", (1, count, rows, 1)))
        own = net.reshape(x, 1, x.ne[0], rows)
        y = net.set_rows(logits, own, net.reshape(places, x.ne[0], 1, 1))
        return net.reshape(y, count, rows)


def build(net: Network) -> None:
    """The graph of a head."""
    Eagle(net, Style(factors=True)).build()
