"""Decoders whose layers are attention and an MLP or experts, in their many ways (`src/models/*.cpp`).

What a file's tensors do not tell is in a `Style`; see `styles.py` for those of the architectures.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal

from willfit.engines.llama_cpp.eras import EARLY_ONCE
from willfit.engines.llama_cpp.graph.attention import (
    AttentionInputs,
    attend,
    attend_batch,
    batch_inputs,
    cache_inputs,
)
from willfit.engines.llama_cpp.graph.drafting import joined
from willfit.engines.llama_cpp.graph.feed_forward import dense, experts, gating, normalises
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.queries import merged_heads, queries_keys_values, split_heads, unsplit
from willfit.engines.llama_cpp.graph.tensor import Node

#: Which layers have rotary positions.
Ropes = Callable[[Network], bool]


def always(net: Network) -> bool:
    """All layers."""
    return True


def never(net: Network) -> bool:
    """No layer."""
    return False


def in_windows(net: Network) -> bool:
    """Layers with a window."""
    return net.slides


def not_each_fourth(net: Network) -> bool:
    """All but the last of four."""
    return (net.layer + 1) % 4 != 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """How a model routes; see `feed_forward.experts`.

    Attributes
    ----------
    gating
        The one way, or the one where the file does not say.
    stated
        The file may say another way.
    normalised, scaled
        None where the file says.
    """

    gating: str = "softmax"
    stated: bool = False
    normalised: bool | None = True
    activation: str = "silu"
    scaled: bool | None = False


#: Where tokens without results are dropped.
Crop = Literal["layer", "before norm", "after norm", "never"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a decoder differs from Llama.

    Attributes
    ----------
    norm
        `rms_norm` or `norm`.
    bare
        Norms have no weights.
    start
        What is done with embeddings: `scaled`, `normed` (without weights).
    ropes, factors
        Which layers have rotary positions; whether tensors give factors of their frequencies.
    wide_norms
        Norms of queries and keys see all heads at once: before they are `split`, or when they are `merged` again.
    norms_after_ropes
        Norms of queries and keys come after the rotation.
    scales_queries
        Queries are scaled before attention.
    gate
        Activation of a gate on what attention gives.
    ffn_norm
        Name of the norm before the MLP.
    post_attention, post_ffn
        Names of norms behind attention and behind the MLP; empty for none.
    early_norm
        The norm behind attention comes before tokens without results are dropped.
    pins_post
        The norm behind the MLP stays on the layer's device.
    parallel
        The MLP does not see what attention gives: it reads its `norm`, or a norm of its `own`.
    order
        How a parallel layer's results are summed.
    activation, fused
        Of the MLP; see `feed_forward.dense`.
    experts
        How it routes, if it has experts.
    crop
        Where tokens without results are dropped: in the last `layer`, around the last norm (so that a draft model can
        have the vectors of all tokens), or `never`.
    draft_crop
        The same where layers of the model draft.
    mlp_second
        The MLP's result is added to the residual stream, not the stream to it.
    logit_scale
        Logits are scaled: always, or where the file `stated` a scale.
    softcap
        Logits are softly capped: always, or where the file `stated` it.
    cached
        False for models that see the whole text at once.
    head
        Whether it makes logits.
    ignored
        Tensors that files may have, but that nothing reads.
    """

    norm: Literal["rms_norm", "norm"] = "rms_norm"
    bare: bool = False
    start: Literal["", "scaled", "normed"] = ""
    ropes: Ropes = always
    factors: bool = False
    wide_norms: Literal["", "split", "merged"] = ""
    norms_after_ropes: bool = False
    scales_queries: bool = False
    gate: str = ""
    ffn_norm: str = "ffn_norm"
    post_attention: str = ""
    post_ffn: str = ""
    early_norm: bool = False
    pins_post: bool = False
    parallel: Literal["", "norm", "own"] = ""
    order: Literal["mlp+x+attention", "mlp+attention+x", "attention+mlp+x"] = "mlp+x+attention"
    activation: str = "silu"
    fused: str = ""
    experts: Experts = Experts()
    crop: Crop = "layer"
    draft_crop: Crop = "after norm"
    mlp_second: bool = False
    logit_scale: Literal["", "always", "stated"] = ""
    softcap: Literal["", "always", "stated"] = ""
    cached: bool = True
    head: bool = True
    ignored: frozenset[str] = frozenset()


class Decoder:
    """The graph of one decoder under construction. Subclasses replace parts.

    Attributes
    ----------
    repeats
        Identical layers need the same of a buffer; False where each adds something that stays.
    """

    repeats = True

    def __init__(self, net: Network, style: Style) -> None:
        self.net = net
        self.style = style
        net.ignored = style.ignored
        self.positions = net.positions()
        self.inputs: AttentionInputs = cache_inputs(net) if style.cached else batch_inputs(net)
        self.rows = net.output_rows()

    def build(self) -> None:
        """All of it: the model, or the layer of it that drafts."""
        net = self.net
        if net.batch.drafts:
            net.layer = net.drafting
            x = self.layer(joined(net, self.style.norm))
            names = ("nextn.shared_head_norm.weight", "layer_output_norm.weight")
            norm = next((one for one in map(net.weight, names) if one is not None), None)
            net.own_head = net.weight("nextn.shared_head_head.weight")
            net.layer = -1
            self.end(x, norm)
            return
        x = self.start()
        for _ in net.walk(self.trait if self.repeats else None):
            x = self.layer(x)
        self.end(x)

    def end(self, x: Node, norm: Node | None = None) -> None:
        """What comes behind the layers, with a norm of its own or the model's last one."""
        net = self.net
        drafts = net.batch.drafts
        if self.crop == "before norm":
            x.is_output = not drafts
            x = net.get_rows(x, self.rows)
            x.is_output = drafts
        result = self.normed(x, "output_norm") if norm is None else net.normed(x, norm, None, self.style.norm)
        result.is_output = drafts and self.crop == "layer"
        if self.crop == "after norm":
            result.is_output = True
            result = net.get_rows(result, self.rows)
        net.finish(result, self.logits(result) if self.style.head else None)

    @property
    def crop(self) -> Crop:
        """Where tokens without results are dropped."""
        if self.net.batch.drafts:
            return self.style.draft_crop
        if not self.net.era.drops_tokens:
            return "never"
        architecture = self.net.meta.architecture
        early = architecture in EARLY_ONCE and architecture not in self.net.era.drops_late
        return "layer" if early else self.style.crop

    def trait(self) -> Hashable:
        """What the current layer does that its tensors and its cache do not tell."""
        return self.style.ropes(self.net)

    def start(self) -> Node:
        """What goes into the first layer."""
        net = self.net
        x = net.embedded()
        if self.style.start == "scaled":
            x = net.scale(x)
        elif self.style.start == "normed":
            x = net.rms_norm(x)
        table = net.outer("position_embd.weight")
        if table is not None:
            x = net.add(x, net.get_rows(table, self.positions))
        weight = net.outer("token_embd_norm.weight")
        if weight is not None:
            net.layer = 0
            x = net.normed(x, weight, net.outer("token_embd_norm.bias"), self.style.norm)
        return x

    def normed(self, x: Node, stem: str, pinned: bool = True) -> Node:
        """A norm of the current layer, or outside of the layers; without weights it is none unless norms are bare."""
        net = self.net
        weight = net.weight(f"{stem}.weight") if net.layer >= 0 else net.outer(f"{stem}.weight")
        if weight is None:
            weight = net.weight(stem)  # PLaMo's files name some without an ending
        bias = net.bias(stem) if net.layer >= 0 else net.outer(f"{stem}.bias")
        if weight is None and not self.style.bare:
            return x
        return net.normed(x, weight, bias, self.style.norm, pinned)

    def layer(self, x: Node) -> Node:
        """The current layer."""
        net, style = self.net, self.style
        before = x
        given = self.normed(x, "attn_norm")
        y = self.attention(self.attended(x, given))
        if style.early_norm:
            y = self.normed(y, style.post_attention, style.pins_post)
        if net.is_last and self.crop == "layer":
            y, before = net.get_rows(y, self.rows), net.get_rows(before, self.rows)
            if style.parallel == "norm":
                given = net.get_rows(given, self.rows)
        if style.post_attention and not style.early_norm:
            y = self.normed(y, style.post_attention)
        if style.parallel:
            return self.summed(y, given, before)
        middle = net.add(self.weakened(y), before)
        y = self.feed_forward(self.normed(middle, style.ffn_norm))
        if style.post_ffn:
            y = self.normed(y, style.post_ffn, style.pins_post)
        y = self.weakened(y)
        return self.behind(net.add(middle, y) if style.mlp_second else net.add(y, middle))

    def summed(self, attention: Node, given: Node, x: Node) -> Node:
        """The end of a layer whose MLP does not see what attention gives."""
        net, style = self.net, self.style
        if style.parallel == "own":
            given = self.normed(x, style.ffn_norm)
        mlp = self.feed_forward(given)
        if style.order == "mlp+x+attention":
            return net.add(net.add(mlp, x), attention)
        first = net.add(mlp, attention) if style.order == "mlp+attention+x" else net.add(attention, mlp)
        return net.add(first, x)

    def attended(self, x: Node, given: Node) -> Node:
        """What attention reads of a layer's input and of its norm."""
        return given if self.net.weight("attn_norm_2.weight") is None else self.normed(x, "attn_norm_2")

    def weakened(self, x: Node) -> Node:
        """What a layer adds to the residual stream, scaled if it is."""
        return x

    def behind(self, x: Node) -> Node:
        """What a layer gives to the next."""
        return x

    def projections(self, x: Node) -> tuple[Node, Node, Node]:
        """Queries, keys and values before the rotation."""
        style = self.style
        if style.wide_norms == "split":
            q, k, v = unsplit(self.net, x)
            return split_heads(self.net, (self.normed_head(q, "q"), self.normed_head(k, "k"), v))
        q, k, v = queries_keys_values(self.net, x)
        if style.norms_after_ropes:
            return q, k, v
        if style.wide_norms == "merged":
            return self.merged_norm(q, "q"), self.merged_norm(k, "k"), v
        return self.normed_head(q, "q"), self.normed_head(k, "k"), v

    def merged_norm(self, x: Node, which: str) -> Node:
        """Queries or keys with a norm that sees all heads."""
        if self.net.weight(f"attn_{which}_norm.weight") is None:
            return x
        return self.net.reshape(self.normed_head(merged_heads(self.net, x), which), *x.ne[:3])

    def normed_head(self, x: Node, which: str) -> Node:
        """Queries or keys with their norm, if they have one."""
        weight = self.net.weight(f"attn_{which}_norm.weight")
        if weight is None:
            return x
        return self.net.normed(x, weight, self.net.bias(f"attn_{which}_norm"), self.style.norm)

    def attention(self, x: Node) -> Node:
        """Attention with its projections."""
        net, style = self.net, self.style
        q, k, v = self.projections(x)
        if net.meta.architecture in net.era.projects_first and style.cached:
            for one in (q, k, v):
                net.expand(one)
        if style.ropes(net):
            factors = self.factors()
            q, k = net.rope(q, self.positions, factors), net.rope(k, self.positions, factors)
        if style.norms_after_ropes:
            q, k = self.normed_head(q, "q"), self.normed_head(k, "k")
        q, k = self.prepared(q, k)
        sinks = net.weight("attn_sinks.weight")
        sub_norm = net.weight("attn_sub_norm.weight")
        plain = not style.gate and sub_norm is None
        run = attend if style.cached else attend_batch
        y = run(net, self.inputs.of(net), q, k, v, sinks, "attn_output" if plain else "")
        if plain:
            return y
        if sub_norm is not None:
            y = self.normed(y, "attn_sub_norm")
        if style.gate and net.weight("attn_gate.weight") is not None:
            y = self.gated(y, x)
        return net.projected("attn_output", y)

    def factors(self) -> Node | None:
        """Factors of rotary frequencies in the current layer."""
        return self.net.rope_factors() if self.style.factors else None

    def prepared(self, q: Node, k: Node) -> tuple[Node, Node]:
        """Queries and keys as attention gets them."""
        return (self.net.scale(q), k) if self.style.scales_queries else (q, k)

    def gated(self, x: Node, given: Node) -> Node:
        """What attention gives times a gate, one for each element or for each head."""
        net = self.net
        weight = net.needed("attn_gate.weight")
        gate = net.unary(self.style.gate, net.linear(weight, given))
        count = weight.ne[1]
        if count == x.ne[0]:
            return net.mul(x, gate)
        parts = net.reshape(x, x.ne[0] // count, count, x.ne[1])
        return merged_heads(net, net.mul(parts, net.reshape(gate, 1, count, x.ne[1])))

    def feed_forward(self, x: Node) -> Node:
        """The MLP, or experts with what they share."""
        net, style = self.net, self.style
        if net.weight("ffn_gate_inp.weight") is not None:
            return self.shared(self.routed(x), x)
        if net.weight("ffn_sub_norm.weight") is None:
            return dense(net, x, style.activation, fused=style.fused)
        y = dense(net, x, style.activation, fused=style.fused, down=False)
        return net.linear(
            net.needed("ffn_down.weight"), self.normed(y, "ffn_sub_norm"), net.weight("ffn_down.scale")
        )

    def routed(self, x: Node) -> Node:
        """The chosen experts' sum."""
        net, how = self.net, self.style.experts
        chosen = gating(net, how.gating) if how.stated else how.gating
        normalised = normalises(net) if how.normalised is None else how.normalised
        return experts(net, x, chosen, normalised, how.activation, scaled=how.scaled)

    def shared(self, routed: Node, x: Node) -> Node:
        """With the shared expert, if there is one."""
        if self.net.weight("ffn_up_shexp.weight") is None:
            return routed
        return self.net.add(routed, dense(self.net, x, self.style.activation, "_shexp"))

    def logits(self, x: Node) -> Node:
        """The head with what follows."""
        net, style = self.net, self.style
        y = net.head(x)
        if style.logit_scale == "always" or (style.logit_scale == "stated" and net.value("logit_scale")):
            y = net.scale(y)
        if style.softcap == "always" or (style.softcap == "stated" and net.value("final_logit_softcapping")):
            y = net.capped(y)
        return y
