"""Encoders in BERT's manner, with norms behind each part (`bert.cpp`); NeoBERT."""

from __future__ import annotations

from collections.abc import Hashable

from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Experts, Style, always, never
from willfit.engines.llama_cpp.graph.feed_forward import dense
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node

_ROTATING = frozenset(("nomic-bert", "nomic-bert-moe", "jina-bert-v3"))
_MLP_BIASES = frozenset(("ffn_up.bias", "ffn_down.bias", "ffn_down.scale"))
_WITHOUT_GATE = frozenset(("bert", "nomic-bert-moe", "jina-bert-v3"))


class Bert(Decoder):
    """Norms behind attention and behind the MLP."""

    def build(self) -> None:
        """See `Decoder.build`."""
        net = self.net
        x = self.start()
        for _ in net.walk(self.trait):
            x = self.layer(x)
        net.finish(x)

    def trait(self) -> Hashable:
        """See `Decoder.trait`."""
        return self._routes()

    def start(self) -> Node:
        """See `Decoder.start`."""
        net = self.net
        x = net.embedded()
        kinds = net.outer("token_types.weight")
        if kinds is not None:
            x = net.add(x, net.view(kinds, (net.hidden,)))
        if net.meta.architecture == "bert":
            x = net.add(net.get_rows(net.weights["position_embd.weight"], self.positions), x)
        net.layer = 0
        return net.normed(x, net.outer("token_embd_norm.weight"), net.outer("token_embd_norm.bias"), "norm")

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        y = self.attention(x)
        if net.is_last and self.drops:
            y, x = net.get_rows(y, self.rows), net.get_rows(x, self.rows)
        y = self.normed(net.add(y, x), "attn_output_norm")
        if net.weight("attn_norm_2.weight") is not None:
            y = self.normed(net.add(y, x), "attn_norm_2")
        return self.normed(net.add(self.feed_forward(y), y), "layer_output_norm")

    @property
    def drops(self) -> bool:
        """Whether tokens without results are dropped: in older builds, where vectors are not pooled."""
        era, pooling = self.net.era, self.net.batch.pooling
        return era.drops_tokens and (not era.encodes_late or pooling == "none")

    def feed_forward(self, x: Node) -> Node:
        """See `Decoder.feed_forward`."""
        net = self.net
        kind = net.meta.architecture
        if self._routes():
            return self.routed(x)
        if kind in _WITHOUT_GATE:
            return dense(net, x, "gelu")
        if kind == "jina-bert-v2":
            wide = net.weight("ffn_gate.weight") is None
            wide = wide and net.needed("ffn_up.weight").ne[1] != net.meta.integer("feed_forward_length")
            return dense(net, x, "gelu", fused="geglu" if wide else "")
        return dense(net, x)

    def _routes(self) -> bool:
        """Whether the current layer has experts."""
        net = self.net
        every = net.meta.integer("moe_every_n_layers", 0) if net.meta.architecture == "nomic-bert-moe" else 0
        return bool(every) and net.layer % every == 1


class NeoBert(Decoder):
    """An encoder with norms before each part."""

    def normed(self, x: Node, stem: str, pinned: bool = True) -> Node:
        """See `Decoder.normed`."""
        return super().normed(x, "enc.output_norm" if stem == "output_norm" else stem, pinned)


def build(net: Network) -> None:
    """The graph of one of these encoders."""
    if net.meta.architecture == "neo-bert":
        NeoBert(net, Style(cached=False, head=False, fused="swiglu")).build()
        return
    style = Style(
        norm="norm",
        ropes=always if net.meta.architecture in _ROTATING else never,
        wide_norms="merged",
        experts=Experts(normalised=False, activation="gelu"),
        cached=False,
        head=False,
        ignored=_MLP_BIASES if net.meta.architecture == "nomic-bert" else frozenset(),
    )
    Bert(net, style).build()
