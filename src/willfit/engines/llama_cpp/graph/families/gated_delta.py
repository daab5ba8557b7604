"""Qwen3-Next and Qwen3.5: gated delta rule in most layers, gated attention in the rest (`qwen3next.cpp`, ...)."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.mixers import Attention
from willfit.engines.llama_cpp.graph.attention import attend
from willfit.engines.llama_cpp.graph.delta import delta_rule
from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Experts, Style
from willfit.engines.llama_cpp.graph.feed_forward import dense
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.recurrent import (
    behind_earlier,
    by_sequence,
    kept,
    state_inputs,
    tokens_of_each,
)
from willfit.engines.llama_cpp.graph.tensor import Node

STYLE = Style(ffn_norm="post_attention_norm", experts=Experts(scaled=None))


class GatedDelta(Decoder):
    """What Qwen3.5 does."""

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        self.states = state_inputs(net)

    def attended(self, x: Node, given: Node) -> Node:
        """See `Decoder.attended`."""
        if not self.net.batch.drafts:
            self.net.expand(given)
        return given

    def attention(self, x: Node) -> Node:
        """See `Decoder.attention`."""
        return self.recurrent(x) if self.net.cache.s is not None else self.gated_attention(x)

    def shared(self, routed: Node, x: Node) -> Node:
        """See `Decoder.shared`."""
        net = self.net
        if net.weight("ffn_up_shexp.weight") is None:
            return routed
        mlp = dense(net, x, suffix="_shexp")
        gate = net.unary("sigmoid", net.linear(net.needed("ffn_gate_inp_shexp.weight"), x))
        return net.add(routed, net.mul(mlp, gate))

    # Attention

    def gated_attention(self, x: Node) -> Node:
        """Attention whose outputs are gated by what is projected beside the queries."""
        net = self.net
        mask = self.seen(x)
        wide, k, v = (net.projected(f"attn_{name}", x) for name in "qkv")
        q, gate = self.queries_and_gate(wide)
        width = self.width
        k = net.reshape(k, width, k.ne[0] // width, k.ne[1])
        v = net.reshape(v, width, v.ne[0] // width, v.ne[1])
        q, k = self.normed_head(q, "q"), self.normed_head(k, "k")
        q, k = net.rope(q, self.positions), net.rope(k, self.positions)
        y = attend(net, self.inputs.of(net), q, k, v, project="", mask=mask)
        gate = net.unary("sigmoid", net.cont(gate, y.ne[0], y.ne[1]))
        return net.projected("attn_output", net.mul(y, gate))

    def seen(self, x: Node) -> Node | None:
        """Which cells each token attends to, if not all that it may."""
        return None

    @property
    def width(self) -> int:
        """Elements of a head."""
        mixer = self.net.attention()
        assert isinstance(mixer, Attention)
        return mixer.head_dim

    def queries_and_gate(self, x: Node) -> tuple[Node, Node]:
        """The two halves of each head, as views."""
        net = self.net
        width = self.width
        count, tokens = x.elements // (2 * width * net.batch.tokens), net.batch.tokens
        size = x.nb[0]
        steps = (2 * width * size, 2 * width * count * size)
        shape = (width, count, tokens)
        return net.view(x, shape, steps), net.view(x, shape, steps, width * size)

    # The delta rule

    def recurrent(self, x: Node) -> Node:
        """The gated delta rule with its projections."""
        net = self.net
        inner, width = net.meta.integer("ssm.inner_size"), net.meta.integer("ssm.state_size")
        groups, count = net.meta.integer("ssm.group_count"), net.meta.integer("ssm.time_step_rank")
        tokens, sequences = tokens_of_each(net), net.batch.sequences
        mixed, z = self.inputs_and_gate(x)
        beta, decay = self.strength_and_decay(x)
        given = self.behind_earlier(mixed)
        assert net.cache.s is not None
        state = kept(net, self.states, net.cache.s)
        state = net.reshape(state, inner // count, inner // count, count, sequences)
        y = net.unary("silu", net.ssm_conv(given, net.needed("ssm_conv1d.weight")))
        size, row = y.nb[0], (2 * groups * width + inner) * y.nb[0]
        steps = (size * width, row, row * tokens)
        q = net.view(y, (width, groups, tokens, sequences), steps)
        k = net.view(y, (width, groups, tokens, sequences), steps, size * width * groups)
        v = net.view(
            y,
            (inner // count, count, tokens, sequences),
            (size * inner // count, *steps[1:]),
            size * 2 * width * groups,
        )
        q, k = self.unit(q), self.unit(k)
        q, k = self.spread(q, count), self.spread(k, count)
        y = delta_rule(net, q, k, v, decay, beta, state)
        z = net.reshape(z, inner // count, count, tokens, sequences)
        y = net.mul(net.layer_norm(y, "ssm_norm"), self.gate_of_outputs(z))
        y = net.projected("ssm_out", net.reshape(y, inner, tokens, sequences))
        return net.reshape(y, y.ne[0], net.batch.tokens)

    def behind_earlier(self, x: Node) -> Node:
        """What the short convolution reads; see `recurrent.behind_earlier`."""
        return behind_earlier(self.net, self.states, x)

    def gate_of_outputs(self, z: Node) -> Node:
        """What the outputs are multiplied by."""
        return self.net.unary("silu", z)

    def unit(self, x: Node) -> Node:
        """Queries or keys of length 1."""
        net = self.net
        return net.scale(net.rms_norm(x)) if net.era.scales_norms else net.l2_norm(x)

    def inputs_and_gate(self, x: Node) -> tuple[Node, Node]:
        """Queries, keys and values side by side, and the gate of the outputs."""
        net = self.net
        return by_sequence(net, net.projected("attn_qkv", x)), net.projected("attn_gate", x)

    def strength_and_decay(self, x: Node) -> tuple[Node, Node]:
        """What each head learns of a token, and forgets."""
        net = self.net
        beta = net.projected("ssm_beta", x)
        shape = (1, beta.ne[0], tokens_of_each(net), net.batch.sequences)
        beta = net.unary("sigmoid", net.reshape(beta, *shape))
        return beta, net.reshape(self.decay(by_sequence(net, net.projected("ssm_alpha", x))), *shape)

    def decay(self, alpha: Node) -> Node:
        """What each head forgets, from what is projected."""
        net = self.net
        y = net.unary("softplus", net.add(alpha, net.needed("ssm_dt.bias")))
        return net.mul(y, net.needed("ssm_a"))

    def spread(self, x: Node, count: int) -> Node:
        """Keys or queries for so many heads of values."""
        return x


class Next(GatedDelta):
    """Qwen3-Next: keys and queries are repeated, strength and decay are one projection."""

    def inputs_and_gate(self, x: Node) -> tuple[Node, Node]:
        """See `GatedDelta.inputs_and_gate`."""
        net = self.net
        if net.weight("ssm_in.weight") is None:
            return super().inputs_and_gate(x)
        groups, width = net.meta.integer("ssm.group_count"), net.meta.integer("ssm.state_size")
        each = net.meta.integer("ssm.inner_size") // groups
        y = net.projected("ssm_in", x)
        y = net.reshape(y, y.ne[0] // groups, groups, tokens_of_each(net), net.batch.sequences)
        parts, offset = [], 0
        for size in (width, width, each, each):
            parts.append(net.view(y, (size, *y.ne[1:]), y.nb[1:], offset * y.nb[0]))
            offset += size
        z = net.cont(parts[3])
        q, k, v = (net.cont(part, part.ne[0] * groups, *part.ne[2:]) for part in parts[:3])
        return net.concat(net.concat(q, k, 0), v, 0), z

    def queries_and_gate(self, x: Node) -> tuple[Node, Node]:
        """See `GatedDelta.queries_and_gate`."""
        width = self.width
        if self.net.batch.drafts:
            return super().queries_and_gate(x)
        return super().queries_and_gate(self.net.reshape(x, 2 * width, x.ne[0] // (2 * width), x.ne[1]))

    def strength_and_decay(self, x: Node) -> tuple[Node, Node]:
        """See `GatedDelta.strength_and_decay`."""
        net = self.net
        groups, count = net.meta.integer("ssm.group_count"), net.meta.integer("ssm.time_step_rank")
        each, tokens, sequences = count // groups, tokens_of_each(net), net.batch.sequences
        mixed = net.reshape(net.projected("ssm_ba", x), 2 * each, groups, tokens, sequences)
        beta = net.view(mixed, (each, *mixed.ne[1:]), mixed.nb[1:])
        alpha = net.view(mixed, (each, *mixed.ne[1:]), mixed.nb[1:], each * mixed.nb[0])
        beta = net.unary("sigmoid", net.cont(beta))
        decay = self.decay(net.cont(alpha, count, tokens, sequences))
        shape = (1, count, tokens, sequences)
        return net.reshape(beta, *shape), net.reshape(decay, *shape)

    def spread(self, x: Node, count: int) -> Node:
        """See `GatedDelta.spread`."""
        net = self.net
        width, groups, tokens, sequences = x.ne
        if groups == count:
            return x
        x = net.repeat(
            net.reshape(x, width, 1, groups, tokens * sequences),
            width,
            count // groups,
            groups,
            tokens * sequences,
        )
        return net.reshape(x, width, count, tokens, sequences)


def build(net: Network) -> None:
    """Build the graph."""
    style = replace(STYLE, crop="after norm")
    if net.meta.architecture == "qwen3next":
        Next(net, replace(style, draft_crop="layer")).build()
    else:
        GatedDelta(net, style).build()
