"""MiniMax-Text-01: lightning attention in most layers (`minimax-01.cpp`)."""

from __future__ import annotations

from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Style
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.recurrent import kept, state_inputs, store, tokens_of_each
from willfit.engines.llama_cpp.graph.tensor import Node


class Lightning(Decoder):
    """Layers add the scaled result of their norm to what they compute, not their input."""

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        self.states = state_inputs(net)
        self.width = net.meta.integer("attention.key_length")
        self.heads = net.meta.integer("attention.head_count")
        tokens, sequences = tokens_of_each(net), net.batch.sequences
        self.slopes = net.input("F32", self.heads, name="slopes")
        self.query_decay = net.input("F32", 1, self.heads, tokens, sequences, name="decay of queries")
        self.key_decay = net.input("F32", 1, self.heads, tokens, sequences, name="decay of keys")
        self.score_decay = net.input("F32", tokens, tokens, self.heads, sequences, name="decay of scores")

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        given = self.normed(x, "attn_norm")
        y = self.attention(given)
        if net.is_last:
            y, given = net.get_rows(y, self.rows), net.get_rows(given, self.rows)
        middle = self.normed(net.add(y, net.scale(given)), "ffn_norm")
        return net.add(self.feed_forward(middle), net.scale(middle))

    def attention(self, x: Node) -> Node:
        """See `Decoder.attention`."""
        return self.lightning(x) if self.net.cache.s is not None else super().attention(x)

    def lightning(self, x: Node) -> Node:
        """Linear attention: within the batch by scores, before it by the state."""
        net = self.net
        assert net.cache.r is not None
        assert net.cache.s is not None
        kept(net, self.states, net.cache.r)
        tokens, sequences = tokens_of_each(net), net.batch.sequences
        slopes = net.scale(self.slopes)
        x = net.reshape(x, x.ne[0], tokens, 1, sequences)
        y = net.unary("silu", net.linear(net.needed("attn_qkv.weight"), x))
        y = net.reshape(y, 3 * self.width, self.heads, tokens, sequences)
        shape = (self.width, *y.ne[1:])
        q, k, v = (net.view(y, shape, y.nb[1:], part * self.width * y.nb[0]) for part in range(3))
        state = kept(net, self.states, net.cache.s)
        state = net.reshape(state, self.width, self.width, self.heads, sequences)
        decay_q, decay_k, decay = (
            net.unary("exp", net.scale(one)) for one in (self.query_decay, self.key_decay, self.score_decay)
        )
        before = net.mul_mat(state, net.permute(net.mul(q, decay_q), 0, 2, 1, 3))
        q, turned = net.permute(q, 0, 2, 1, 3), net.permute(k, 0, 2, 1, 3)
        scores = net.mul(net.mul_mat(turned, q), decay)
        v = net.cont(net.permute(v, 1, 2, 0, 3))
        y = net.add(before, net.mul_mat(v, scores))
        net.expand(y)
        passed = net.reshape(net.unary("exp", net.scale(slopes)), 1, 1, self.heads)
        old = net.mul(state, passed)
        k = net.cont(net.permute(net.mul(k, decay_k), 1, 2, 0, 3))
        store(net, net.add(old, net.mul_mat(k, v)))
        y = net.cont(net.permute(y, 0, 2, 1, 3))
        y = net.reshape(y, y.ne[0] * y.ne[1], y.ne[2], 1, y.ne[3])
        y = self.normed(y, "attn_norm_2")
        gate = net.unary("sigmoid", net.linear(net.needed("attn_gate.weight"), x))
        y = net.linear(net.needed("attn_output.weight"), net.mul(gate, y))
        return net.reshape(y, y.ne[0], net.batch.tokens)


def build(net: Network) -> None:
    """Build the graph."""
    Lightning(net, Style()).build()
