"""Kimi's delta attention in most layers, latent attention in the rest (`kimi-linear.cpp`, `bailingmoe3.cpp`)."""

from __future__ import annotations

from dataclasses import replace

from willfit.engines.llama_cpp.graph.delta import delta_rule
from willfit.engines.llama_cpp.graph.families.decoder import Experts, Style
from willfit.engines.llama_cpp.graph.families.latent import Latent
from willfit.engines.llama_cpp.graph.feed_forward import experts, gating, normalises, situ
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.recurrent import by_sequence, kept, state_inputs, tokens_of_each
from willfit.engines.llama_cpp.graph.tensor import Node

_STYLE = Style(experts=Experts(stated=True, scaled=None))
_PARTS = ("q", "k", "v")


class KimiDelta(Latent):
    """What Kimi-Linear does: no rotary positions at all."""

    flat = True

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        self.states = state_inputs(net)
        self.width = net.meta.integer("kda.head_dim")

    def attended(self, x: Node, given: Node) -> Node:
        """See `Decoder.attended`."""
        self.net.expand(given)
        return given

    def rotated(self, x: Node, factors: Node | None = None) -> Node:
        """See `Latent.rotated`."""
        return x

    def attention(self, x: Node) -> Node:
        """See `Decoder.attention`."""
        return self.recurrent(x) if self.net.cache.s is not None else super().attention(x)

    # The delta rule

    def recurrent(self, x: Node) -> Node:
        """The delta rule with its projections."""
        net = self.net
        assert net.cache.r is not None
        assert net.cache.s is not None
        before = kept(net, self.states, net.cache.r)
        sources = self.sources(x)
        q, k, v = (
            self.convolved(before, index, self.source(sources, index, x)) for index in range(len(_PARTS))
        )
        tokens, sequences = tokens_of_each(net), net.batch.sequences
        shape = (self.width, self.heads, tokens, sequences)
        decay = net.reshape(self.decay(x), *shape)
        beta = net.mul_mat(net.needed("ssm_beta.weight"), x)
        beta = net.unary("sigmoid", net.reshape(beta, 1, *shape[1:]))
        state = kept(net, self.states, net.cache.s)
        state = net.reshape(state, self.width, self.width, self.heads, sequences)
        q, k = net.scale(net.rms_norm(q)), net.scale(net.rms_norm(k))
        y = net.cont(delta_rule(net, q, k, v, decay, beta, state))
        flat = (self.width, self.heads, net.batch.tokens)
        gate = net.reshape(self.gate(x), *flat)
        y = net.mul(net.layer_norm(net.reshape(y, *flat), "ssm_norm"), net.unary("sigmoid", gate))
        y = net.cont(y, self.width * self.heads, net.batch.tokens)
        return net.mul_mat(net.needed("attn_output.weight"), y)

    def sources(self, x: Node) -> Node | None:
        """Queries, keys and values side by side, if one matrix makes them."""
        weight = self.net.weight("attn_qkv.weight")
        return self.net.mul_mat(weight, x) if weight is not None else None

    def source(self, sources: Node | None, index: int, x: Node) -> Node:
        """Queries, keys or values."""
        net = self.net
        if sources is None:
            return net.mul_mat(net.needed(f"attn_{_PARTS[index]}.weight"), x)
        channels = self.width * self.heads
        part = net.view(sources, (channels, x.ne[1]), sources.nb[1:2], index * channels * sources.nb[0])
        return net.cont(part)

    def convolved(self, before: Node, index: int, x: Node) -> Node:
        """A short convolution of queries, keys or values, each of which has a part of what is kept."""
        net = self.net
        cache = net.cache.r
        assert cache is not None
        channels, sequences = x.ne[0], net.batch.sequences
        width = before.ne[0] // (len(_PARTS) * channels)
        shape, first = (width, channels, sequences), index * width * channels * before.nb[0]
        row = width * before.nb[0]
        earlier = net.view(before, shape, (row, before.nb[1]), first)
        x = by_sequence(net, x)
        given = net.concat(earlier, net.transpose(x), 0)
        for slot in range(min(x.ne[1], net.snapshots)):
            last = net.view(given, shape, given.nb[1:3], (x.ne[1] - slot) * given.nb[0])
            place = slot * net.batch.cached * cache.nb[1] + first
            net.expand(net.cpy(last, net.view(cache, shape, (row, cache.nb[1]), place)))
        weight = net.needed(f"ssm_conv1d_{_PARTS[index]}.weight")
        y = net.ssm_conv(given, net.reshape(weight, width + 1, channels))
        y = net.unary("silu", net.reshape(y, channels, net.batch.tokens))
        return net.reshape(y, self.width, self.heads, x.ne[1], sequences)

    def decay(self, x: Node) -> Node:
        """What each channel forgets."""
        net = self.net
        y = net.mul_mat(net.needed("ssm_f_b.weight"), net.mul_mat(net.needed("ssm_f_a.weight"), x))
        y = net.unary("softplus", net.add(y, net.needed("ssm_dt.bias")))
        return self.times_a(y)

    def perhaps_bounded_decay(self, x: Node) -> Node:
        """What each channel forgets, bounded from below if the file says so."""
        net = self.net
        if f"{net.meta.architecture}.kda.gate_lower_bound" not in net.meta.values:
            return KimiDelta.decay(self, x)
        y = net.mul_mat(net.needed("ssm_f_b.weight"), net.mul_mat(net.needed("ssm_f_a.weight"), x))
        y = self.times_a(net.add(y, net.needed("ssm_dt.bias")))
        return net.scale(net.unary("sigmoid", net.scale(y)))

    def times_a(self, x: Node) -> Node:
        """Width x heads x tokens, times a factor of each head."""
        net = self.net
        x = net.reshape(x, self.width, self.heads, net.batch.tokens)
        return net.mul(x, net.reshape(net.needed("ssm_a"), 1, self.heads, 1))

    def gate(self, x: Node) -> Node:
        """The gate of the outputs."""
        net = self.net
        x = net.reshape(by_sequence(net, x), *x.ne[:2])
        return net.mul_mat(net.needed("ssm_g_b.weight"), net.mul_mat(net.needed("ssm_g_a.weight"), x))


class Ling3(KimiDelta):
    """Full-rank gates, rotary positions in latent attention, and a gate of each of its heads."""

    def attended(self, x: Node, given: Node) -> Node:
        """See `Decoder.attended`."""
        return given

    def rotated(self, x: Node, factors: Node | None = None) -> Node:
        """See `Latent.rotated`."""
        return self.net.rope(x, self.positions)

    def decay(self, x: Node) -> Node:
        """See `KimiDelta.decay`: bounded from below."""
        net = self.net
        y = net.add(net.mul_mat(net.needed("ssm_f_a.weight"), x), net.needed("ssm_dt.bias"))
        return net.scale(net.unary("sigmoid", self.times_a(y)))

    def gate(self, x: Node) -> Node:
        """See `KimiDelta.gate`."""
        return self.net.mul_mat(self.net.needed("ssm_g_a.weight"), x)

    def gated(self, x: Node, given: Node) -> Node:
        """See `Decoder.gated`."""
        net = self.net
        gate = net.mul_mat(net.needed("attn_gate.weight"), given)
        gate = net.unary("sigmoid", net.reshape(gate, 1, self.heads, x.ne[1]))
        y = net.mul(net.reshape(x, x.ne[0] // self.heads, self.heads, x.ne[1]), gate)
        return net.cont(y, *x.ne[:2])


class KimiK3(KimiDelta):
    """Layers choose among earlier states of the residual stream; experts work in a narrower space."""

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        self.every = net.meta.integer("attn_res.block_size", 0)
        self.bank: Node | None = None

    def build(self) -> None:
        """See `Decoder.build`."""
        net = self.net
        x = self.start()
        for _ in net.walk():
            x = self.layer(x)
        x = net.get_rows(self.chosen(x, "output_res_score"), self.rows)
        result = self.normed(x, "output_norm")
        net.finish(result, self.logits(result))

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        y = self.chosen(x, "attn_res_score")
        banks = bool(self.every) and net.layer % self.every == 0
        if banks:
            part = net.reshape(x, x.ne[0], 1, x.ne[1])
            self.bank = part if self.bank is None else net.concat(self.bank, part, 1)
        y = self.normed(y, "attn_norm")
        net.expand(y)
        y = self.attention(y)
        middle = y if banks else net.add(x, y)
        y = self.feed_forward(self.normed(self.chosen(middle, "ffn_res_score"), "ffn_norm"))
        return net.add(middle, y)

    def chosen(self, x: Node, stem: str) -> Node:
        """A weighted sum of what was banked and the residual stream."""
        net, bank = self.net, self.bank
        if bank is None:
            return x
        name = f"{stem}.weight"
        weight = net.needed(name) if net.layer >= 0 else net.weights[name]
        count, tokens = bank.ne[1:3]
        scores = net.reshape(net.sum_rows(net.mul(net.rms_norm(bank), weight)), count, tokens)
        own = net.sum_rows(net.mul(net.rms_norm(x), weight))
        shares = net.soft_max(net.concat(scores, own, 0))
        step = shares.nb[1:2]
        banked = net.cont(net.view(shares, (count, tokens), step))
        share = net.cont(net.view(shares, (1, tokens), step, count * shares.nb[0]))
        return net.add(net.weighted_streams(bank, banked), net.mul(x, share))

    def decay(self, x: Node) -> Node:
        """See `KimiDelta.decay`."""
        return self.perhaps_bounded_decay(x)

    def gate(self, x: Node) -> Node:
        """See `KimiDelta.gate`."""
        return self.net.mul_mat(self.net.needed("ssm_g.weight"), x)

    def gated(self, x: Node, given: Node) -> Node:
        """See `Decoder.gated`."""
        return x if self.net.weight("attn_gate.weight") is None else super().gated(x, given)

    def feed_forward(self, x: Node) -> Node:
        """See `Decoder.feed_forward`."""
        net = self.net
        if net.weight("ffn_gate_inp.weight") is None:
            return self.limited(x, "")
        down, up = net.weight("ffn_routed_down.weight"), net.weight("ffn_routed_up.weight")
        narrow = net.mul_mat(down, x) if down is not None else x
        scores = net.mul_mat(net.needed("ffn_gate_inp.weight"), x)
        y = experts(net, narrow, gating(net, "softmax"), normalises(net), "situ", scores=scores)
        y = self.normed(y, "ffn_routed_norm")
        if up is not None:
            y = net.mul_mat(up, y)
        if net.weight("ffn_gate_shexp.weight") is None:
            return y
        return net.add(y, self.limited(x, "_shexp"))

    def limited(self, x: Node, suffix: str) -> Node:
        """An MLP, or the shared expert."""
        net = self.net
        gate, up = (net.mul_mat(net.needed(f"ffn_{name}{suffix}.weight"), x) for name in ("gate", "up"))
        return net.mul_mat(net.needed(f"ffn_down{suffix}.weight"), situ(net, gate, up))


def build(net: Network) -> None:
    """The graph of one of these models."""
    if net.meta.architecture == "kimi-linear":
        KimiDelta(net, _STYLE).build()
        return
    if net.meta.architecture == "kimi-k3":
        KimiK3(net, Style(gate="sigmoid")).build()
        return
    how = replace(_STYLE.experts, normalised=None)
    Ling3(net, Style(experts=how, gate="sigmoid", crop="after norm")).build()
