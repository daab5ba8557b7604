"""Granite and MiniCPM: what layers add is scaled, and some add vectors of pictures (`granite.cpp`, ...)."""

from __future__ import annotations

from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Style
from willfit.engines.llama_cpp.graph.feed_forward import dense
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node

#: What MiniCPM's embeddings and additions are scaled by where the file does not say: anything but nothing.
_STATED_BY_MINICPM = 1.0


class Granite(Decoder):
    """A decoder with scaled additions."""

    def start(self) -> Node:
        """See `Decoder.start`."""
        return self.net.embedded(_default(self.net))

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        places = net.meta.values.get(f"{net.meta.architecture}.deepstack_mapping")
        if isinstance(places, tuple | list) and 0 < net.layer < len(places) and places[net.layer] >= 0:
            x = net.add(x, net.deep_vectors(places[net.layer]))
        return super().layer(x)

    def weakened(self, x: Node) -> Node:
        """See `Decoder.weakened`."""
        return self.net.scale(x) if self.net.value("residual_scale", _default(self.net)) else x

    def shared(self, routed: Node, x: Node) -> Node:
        """See `Decoder.shared`."""
        net = self.net
        if net.meta.architecture != "granite_swa" or net.weight("ffn_up_shexp.weight") is None:
            return super().shared(routed, x)
        return net.add(routed, dense(net, x, suffix="_shexp", fused="swiglu"))


def _default(net: Network) -> float:
    return _STATED_BY_MINICPM if net.meta.architecture == "minicpm" else 0.0


def _rotates(net: Network) -> bool:
    """Whether the file says so, for all layers or for each."""
    meta = net.meta
    if meta.architecture == "granite_swa":
        pattern = meta.flags("attention.rope_pattern")
        return pattern is None or net.layer >= len(pattern) or pattern[net.layer]
    return meta.architecture != "granite" or meta.boolean("rope.scaling.finetuned", True)


def build(net: Network) -> None:
    """The graph of a Granite or MiniCPM model."""
    Granite(net, Style(ropes=_rotates, factors=True, logit_scale="always")).build()
