"""Models with Mamba layers, alone or beside attention (`mamba.cpp`, `jamba.cpp`, `granite-hybrid.cpp`, ...)."""

from __future__ import annotations

from collections.abc import Callable

from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Experts, Style, never
from willfit.engines.llama_cpp.graph.feed_forward import dense, experts, normalises
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.recurrent import StateInputs, state_inputs
from willfit.engines.llama_cpp.graph.state_space import mamba, mamba2, plamo2
from willfit.engines.llama_cpp.graph.tensor import Node

#: A layer's mixer: from its normed input to what is added to the residual stream.
Mixer = Callable[[Network, StateInputs, Node], Node]


class StateSpace(Decoder):
    """A decoder some layers of which have a state space model instead of attention."""

    mixer: Mixer = staticmethod(mamba2)

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        self.states = state_inputs(net)

    def attention(self, x: Node) -> Node:
        """See `Decoder.attention`."""
        if self.net.cache.s is None:
            return super().attention(x)
        return self.mixer(self.net, self.states, x)


class Mamba(StateSpace):
    """Nothing but state space models."""

    mixer: Mixer = staticmethod(mamba)

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        y = self.attention(self.normed(x, "attn_norm"))
        if net.is_last:
            y, x = net.get_rows(y, self.rows), net.get_rows(x, self.rows)
        return net.add(y, x)


class Mamba2(Mamba):
    """The same with Mamba-2."""

    mixer: Mixer = staticmethod(mamba2)


class Jamba(StateSpace):
    """Mamba and attention, each with an MLP or experts."""

    mixer: Mixer = staticmethod(mamba)

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        y = self.attention(self.normed(x, "attn_norm"))
        if net.is_last:
            y, x = net.get_rows(y, self.rows), net.get_rows(x, self.rows)
        middle = net.add(x, y)
        return net.add(middle, self.feed_forward(self.normed(middle, "ffn_norm")))


class GraniteHybrid(StateSpace):
    """What layers add is scaled."""

    def weakened(self, x: Node) -> Node:
        """See `Decoder.weakened`."""
        return self.net.scale(x) if self.net.value("residual_scale") else x


class FalconH1(StateSpace):
    """Attention and Mamba-2 beside each other in each layer."""

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        attended = Decoder.attention(self, self.normed(x, "attn_norm"))
        y = self.mixer(net, self.states, self.normed(x, "attn_norm"))
        middle = net.add(net.add(attended, y), x)
        if net.is_last:
            middle = net.get_rows(middle, self.rows)
        return net.add(dense(net, self.normed(middle, "ffn_norm")), middle)


class NemotronH(StateSpace):
    """Each layer is one of Mamba-2, attention, an MLP or experts."""

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        y = self.normed(x, "attn_norm")
        if net.cache.s is None and net.weight("attn_output.weight") is None:
            y = self.feed_forward(y)
        else:
            y = self.attention(y)
        if net.is_last and self.crop == "layer":
            y, x = net.get_rows(y, self.rows), net.get_rows(x, self.rows)
        return net.add(y, x)

    def feed_forward(self, x: Node) -> Node:
        """See `Decoder.feed_forward`: experts may work in a narrower space."""
        net = self.net
        if net.weight("ffn_gate_inp.weight") is None:
            return super().feed_forward(x)
        down, up = net.weight("ffn_latent_down.weight"), net.weight("ffn_latent_up.weight")
        narrow = net.mul_mat(down, x) if down is not None else x
        scores = net.linear(net.needed("ffn_gate_inp.weight"), x)
        y = experts(net, narrow, "sigmoid", normalises(net), "relu_sqr", scores=scores)
        if up is not None:
            y = net.mul_mat(up, y)
        return net.add(y, dense(net, x, "relu_sqr", "_shexp"))


class Plamo2(StateSpace):
    """Mamba with heads of its own kind, attention in some layers, norms behind both and behind the MLP."""

    mixer: Mixer = staticmethod(plamo2)


def build(net: Network) -> None:
    """The graph of one of these models."""
    builders: dict[str, tuple[type[Decoder], Style]] = {
        "mamba": (Mamba, Style()),
        "mamba2": (Mamba2, Style()),
        "jamba": (Jamba, Style(ropes=never, experts=Experts(normalised=False, scaled=None))),
        "granitehybrid": (
            GraniteHybrid,
            Style(ropes=_rotates, factors=True, experts=Experts(scaled=None), logit_scale="stated"),
        ),
        "falcon-h1": (FalconH1, Style()),
        "plamo2": (
            Plamo2,
            Style(
                post_attention="post_attention_norm", post_ffn="post_ffw_norm", fused="swiglu", pins_post=True
            ),
        ),
        "nemotron_h": (NemotronH, _NEMOTRON),
        "nemotron_h_moe": (NemotronH, _NEMOTRON),
    }
    kind, style = builders[net.meta.architecture]
    kind(net, style).build()


_NEMOTRON = Style(ropes=never, activation="relu_sqr", crop="after norm")


def _rotates(net: Network) -> bool:
    return net.meta.boolean("rope.scaling.finetuned", True)
