"""Decoders that do more to queries, keys and values (`llama4.cpp`, `mistral3.cpp`, `mimo2.cpp`, ...)."""

from __future__ import annotations

from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Experts, Style, not_each_fourth
from willfit.engines.llama_cpp.graph.feed_forward import dense
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.queries import split_heads, unsplit
from willfit.engines.llama_cpp.graph.tensor import Node

#: The Llama 4 model of so many experts has no norm of queries and keys.
_MAVERICK_EXPERTS = 128


class Llama4(Decoder):
    """Queries are scaled by their position where they are not rotated, and normed where they are."""

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        self.temperature = net.temperature()

    def prepared(self, q: Node, k: Node) -> tuple[Node, Node]:
        """See `Decoder.prepared`."""
        net = self.net
        if not self.style.ropes(net):
            return net.mul(q, self.temperature), k
        if net.meta.integer("expert_count", 0) == _MAVERICK_EXPERTS:
            return q, k
        return net.rms_norm(q), net.rms_norm(k)


class Mistral3(Decoder):
    """Queries are scaled by their position, if the file says so."""

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        stated = net.value("attention.temperature_scale")
        self.temperature = net.temperature() if stated else None

    def prepared(self, q: Node, k: Node) -> tuple[Node, Node]:
        """See `Decoder.prepared`."""
        return (q if self.temperature is None else self.net.mul(q, self.temperature)), k


#: Biases that MiMo's files may have for nothing.
_BIASES = frozenset(f"attn_{name}.bias" for name in "qkv")


class Mimo(Decoder):
    """What attention gives is scaled."""

    def attention(self, x: Node) -> Node:
        """See `Decoder.attention`."""
        y = super().attention(x)
        return self.net.scale(y) if self.net.value("attention.value_scale") not in (0.0, 1.0) else y


class Step(Decoder):
    """Parts of a fused projection are copied before they are split into heads."""

    def projections(self, x: Node) -> tuple[Node, Node, Node]:
        """See `Decoder.projections`."""
        q, k, v = split_heads(self.net, unsplit(self.net, x))
        return self.normed_head(q, "q"), self.normed_head(k, "k"), v

    def factors(self) -> Node | None:
        """See `Decoder.factors`."""
        return None if self.net.slides else super().factors()


class OpenElm(Decoder):
    """Queries, keys and values are heads of one tensor."""

    def projections(self, x: Node) -> tuple[Node, Node, Node]:
        """See `Decoder.projections`."""
        net = self.net
        width = net.meta.integer("attention.key_length")
        heads = net.meta.integer("attention.head_count", layer=net.layer)
        kv_heads = net.meta.integer("attention.head_count_kv", layer=net.layer)
        y = net.linear(net.needed("attn_qkv.weight"), x)
        y = net.reshape(y, width, heads + 2 * kv_heads, x.ne[1])
        parts, first = [], 0
        for count in (heads, kv_heads, kv_heads):
            parts.append(net.view(y, (width, count, x.ne[1]), y.nb[1:3], first * y.nb[1]))
            first += count
        q, k, v = parts
        return self.normed_head(q, "q"), self.normed_head(k, "k"), v

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        y = self.attention(self.normed(x, "attn_norm"))
        if net.is_last:
            x, y = net.get_rows(x, self.rows), net.get_rows(y, self.rows)
        middle = net.add(x, y)
        return net.add(dense(net, self.normed(middle, "ffn_norm")), middle)


class StableLm(Decoder):
    """The MLP reads the first norm's result where there is no second norm."""

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        given = self.normed(x, "attn_norm")
        y = self.attention(given)
        if net.is_last:
            y, x, given = (net.get_rows(one, self.rows) for one in (y, x, given))
        middle = net.add(y, x)
        second = net.weight("ffn_norm.weight") is not None
        return net.add(dense(net, self.normed(middle, "ffn_norm") if second else given), middle)


class Talkie(Decoder):
    """Each layer adds the embeddings again."""

    def start(self) -> Node:
        """See `Decoder.start`."""
        self.again = super().start()
        return self.again

    def normed_head(self, x: Node, which: str) -> Node:
        """See `Decoder.normed_head`."""
        return self.net.normed(x, self.net.weight(f"attn_{which}_norm.weight"))

    def behind(self, x: Node) -> Node:
        """See `Decoder.behind`."""
        net = self.net
        again = net.get_rows(self.again, self.rows) if net.is_last else self.again
        return net.add(x, net.mul(again, net.needed("layer_output_scale.weight")))


def build(net: Network) -> None:
    """The graph of one of these models."""
    builders: dict[str, tuple[type[Decoder], Style]] = {
        "llama4": (
            Llama4,
            Style(
                ropes=not_each_fourth if net.has_windows else _not_last,
                factors=True,
                experts=Experts(gating="sigmoid", normalised=False),
            ),
        ),
        "mimo2": (
            Mimo,
            Style(experts=Experts(gating="sigmoid"), ignored=_BIASES, draft_crop="before norm"),
        ),
        "mistral3": (Mistral3, Style(factors=True)),
        "openelm": (OpenElm, Style()),
        "stablelm": (StableLm, Style(norm="norm")),
        "step35": (
            Step,
            Style(
                factors=True,
                gate="sigmoid",
                crop="before norm",
                draft_crop="before norm",
                experts=Experts(gating="sigmoid", stated=True, normalised=None, scaled=None),
            ),
        ),
        "talkie": (Talkie, Style(bare=True, start="normed", norms_after_ropes=True, logit_scale="always")),
    }
    kind, style = builders[net.meta.architecture]
    kind(net, style).build()


def _not_last(net: Network) -> bool:
    """Llama 4 without windows: the step between layers without rotation is the number of layers."""
    return not net.is_last
