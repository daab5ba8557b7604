"""T5: a decoder that attends to an encoder's results, and an encoder alone (`t5.cpp`, `t5encoder.cpp`)."""

from __future__ import annotations

from willfit.architectures.mixers import Attention
from willfit.engines.llama_cpp.graph.attention import attend, attend_batch, cross_inputs
from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Style, never
from willfit.engines.llama_cpp.graph.feed_forward import dense
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.queries import split_heads
from willfit.engines.llama_cpp.graph.tensor import Node


class T5Encoder(Decoder):
    """Attention with a bias for relative positions."""

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        tokens = net.batch.tokens
        net.stack = "enc."
        self.buckets = net.input("I32", self.seen(), tokens, name="relative positions")

    def seen(self) -> int:
        """Tokens that each one sees."""
        return self.net.batch.tokens

    def bias(self) -> Node:
        """What is added to the scores; layers without a table of their own use the first one's."""
        net = self.net
        table = net.weight("attn_rel_b.weight")
        if table is None:
            table = net.weights[f"{net.stack}blk.0.attn_rel_b.weight"]
        buckets = self.buckets
        x = net.get_rows(table, net.reshape(buckets, buckets.elements))
        x = net.reshape(x, x.ne[0], buckets.ne[0], buckets.ne[1])
        return net.cont(net.permute(x, 2, 0, 1, 3))

    def attention(self, x: Node) -> Node:
        """See `Decoder.attention`."""
        net = self.net
        q, k, v = self.projections(x)
        run = attend if self.style.cached else attend_batch
        return run(net, self.inputs.of(net), q, k, v, project="attn_o", bias=self.bias())

    def projections(self, x: Node) -> tuple[Node, Node, Node]:
        """See `Decoder.projections`."""
        return split_heads(self.net, tuple(self.net.projected(f"attn_{name}", x) for name in "qkv"))

    def feed_forward(self, x: Node) -> Node:
        """See `Decoder.feed_forward`."""
        gated = self.net.weight("ffn_gate.weight") is not None
        return dense(self.net, x, "gelu" if gated else "relu", parallel=gated)

    def normed(self, x: Node, stem: str, pinned: bool = True) -> Node:
        """See `Decoder.normed`."""
        return super().normed(x, f"{self.net.stack}{stem}" if stem == "output_norm" else stem, pinned)


class T5(T5Encoder):
    """A decoder: each layer also attends to what the encoder has found."""

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        net.stack = "dec."
        trained = net.meta.integer("context_length")
        self.found = net.input("F32", net.hidden, trained, name="encoder's results")
        self.crossed = cross_inputs(net, trained)

    def seen(self) -> int:
        """See `T5Encoder.seen`."""
        return self.net.caches[0].cells

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        x = net.add(self.attention(self.normed(x, "attn_norm")), x)
        y = self.cross(self.normed(x, "cross_attn_norm"))
        if net.is_last:
            y, x = net.get_rows(y, self.rows), net.get_rows(x, self.rows)
        middle = net.add(y, x)
        return net.add(self.feed_forward(self.normed(middle, "ffn_norm")), middle)

    def cross(self, x: Node) -> Node:
        """Attention to the encoder's results."""
        net = self.net
        mixer = net.attention()
        assert isinstance(mixer, Attention)
        given = {"q": (x, mixer.heads), "k": (self.found, mixer.kv_heads), "v": (self.found, mixer.kv_heads)}
        q, k, v = (
            net.reshape(net.projected(f"cross_attn_{name}", one), mixer.head_dim, count, one.ne[1])
            for name, (one, count) in given.items()
        )
        return attend_batch(net, self.crossed, q, k, v, project="cross_attn_o")


def build(net: Network) -> None:
    """The graph of a T5 model."""
    if net.meta.architecture == "t5":
        T5(net, Style(ropes=never)).build()
    else:
        T5Encoder(net, Style(ropes=never, cached=False, head=False)).build()
