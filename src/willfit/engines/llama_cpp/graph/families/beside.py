"""Decoders whose experts are mixed with something else (`arctic.cpp`, `grok.cpp`, `qwen2moe.cpp`, ...)."""

from __future__ import annotations

from dataclasses import replace

from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Experts, Style, in_windows
from willfit.engines.llama_cpp.graph.feed_forward import dense, experts, gating
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node

#: Every so many layers SmallThinker has no rotary positions, if any layer has a window.
_SMALLTHINKER_STEP = 4
#: Layers of Mixtral-like models that are dense at the start, if the file does not say.
_STATED = Experts(stated=True, normalised=None, scaled=None)


class Arctic(Decoder):
    """Experts that see the layer's input, beside an MLP that sees what attention gives."""

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        y = self.attention(self.normed(x, "attn_norm"))
        if net.is_last:
            y, x = net.get_rows(y, self.rows), net.get_rows(x, self.rows)
        middle = net.add(y, x)
        mlp = net.add(dense(net, self.normed(middle, "ffn_norm")), middle)
        return net.add(self.routed(self.normed(x, "ffn_norm_exps")), mlp)


class Grok(Decoder):
    """Experts beside an MLP, both of which see the same; embeddings are scaled, whatever the file says."""

    def start(self) -> Node:
        """See `Decoder.start`."""
        return self.net.embedded(1.0)

    def feed_forward(self, x: Node) -> Node:
        """See `Decoder.feed_forward`."""
        y = self.routed(x)
        if self.net.weight("ffn_up.weight") is None:
            return y
        return self.net.scale(self.net.add(dense(self.net, x, "gelu"), y))


class SharedGate(Decoder):
    """A shared expert with a gate of its own."""

    def shared(self, routed: Node, x: Node) -> Node:
        """See `Decoder.shared`."""
        net = self.net
        scores = net.linear(net.needed("ffn_gate_inp_shexp.weight"), x)
        gate = net.div(net.unary("silu", scores), scores)
        return net.add(routed, net.mul(dense(net, x, suffix="_shexp"), gate))


class Halved(Decoder):
    """A shared expert, whose sum with the others is halved, beside attention."""

    def shared(self, routed: Node, x: Node) -> Node:
        """See `Decoder.shared`."""
        y = super().shared(routed, x)
        return y if y is routed else self.net.scale(y)


class Grove(Decoder):
    """Experts, and behind them smaller ones that groups of them share."""

    def feed_forward(self, x: Node) -> Node:
        """See `Decoder.feed_forward`."""
        net = self.net
        scores = net.linear(net.needed("ffn_gate_inp.weight"), x)
        first = experts(net, x, scores=scores, scaled=False)
        count = net.meta.integer("expert_count") // net.meta.integer("experts_per_group")
        used = min(count, net.meta.integer("expert_used_count"))
        second = experts(net, first, scores=scores, stem="chexps", scaled=False, used=used, count=count)
        return net.add(first, net.scale(second))


class EarlyRouter(Decoder):
    """Experts that are chosen by the layer's input."""

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        scores = net.linear(net.needed("ffn_gate_inp.weight"), x)
        y = self.attention(self.normed(x, "attn_norm"))
        if net.is_last:
            y, x, scores = (net.get_rows(one, self.rows) for one in (y, x, scores))
        middle = net.add(y, x)
        chosen = gating(net, "softmax")
        y = experts(
            net, self.normed(middle, "ffn_norm"), chosen, activation="relu", scores=scores, scaled=False
        )
        return net.add(y, middle)


def _smallthinker(net: Network) -> bool:
    return not net.has_windows or net.layer % _SMALLTHINKER_STEP != 0


def _cohere2moe(net: Network) -> bool:
    return net.batch.drafts or in_windows(net) or net.layer < net.meta.integer("leading_dense_block_count", 0)


def build(net: Network) -> None:
    """The graph of one of these models."""
    plain = Style()
    builders: dict[str, tuple[type[Decoder], Style]] = {
        "arctic": (Arctic, plain),
        "cohere2moe": (
            Halved,
            Style(
                norm="rms_norm" if net.value("attention.layer_norm_rms_epsilon") else "norm",
                factors=True,
                ropes=_cohere2moe,
                parallel="norm",
                crop="after norm",
                experts=replace(_STATED, gating="sigmoid"),
                logit_scale="stated",
            ),
        ),
        "grok": (
            Grok,
            Style(
                post_attention="attn_output_norm",
                post_ffn=_grok_norm(net),
                pins_post=True,
                experts=Experts(activation="gelu"),
                logit_scale="always",
                softcap="stated",
            ),
        ),
        "grovemoe": (Grove, plain),
        "qwen2moe": (SharedGate, replace(plain, experts=Experts(normalised=False))),
        "smallthinker": (EarlyRouter, replace(plain, ropes=_smallthinker)),
    }
    kind, style = builders[net.meta.architecture]
    kind(net, style).build()


def _grok_norm(net: Network) -> str:
    """Name of the norm behind the MLP, which older files call otherwise."""
    old = net.weights.get("blk.0.layer_output_norm.weight")
    return "layer_output_norm" if old is not None else "post_ffw_norm"
