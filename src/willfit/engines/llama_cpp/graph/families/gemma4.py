"""Gemma 4: experts beside an MLP, embeddings for each layer, layers that read earlier ones' caches (`gemma4.cpp`)."""

from __future__ import annotations

from collections.abc import Hashable

from willfit.architectures.mixers import Attention
from willfit.engines.llama_cpp.graph.attention import attend
from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Style
from willfit.engines.llama_cpp.graph.families.per_layer import per_layer_inputs, slice_of
from willfit.engines.llama_cpp.graph.feed_forward import dense, experts
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node

#: Soft capping of logits where the file says nothing.
_SOFTCAP = 30.0


class Gemma4(Decoder):
    """A decoder of the Gemma 4 kind."""

    def start(self) -> Node:
        """See `Decoder.start`."""
        net = self.net
        x = super().start()
        width = net.meta.integer("embedding_length_per_layer_input", 0)
        has = net.outer("per_layer_token_embd.weight") is not None
        self.each = per_layer_inputs(net, x, width) if has else None
        return x

    def trait(self) -> Hashable:
        """See `Decoder.trait`."""
        mixer = self.net.attention()
        return isinstance(mixer, Attention) and mixer.shares_cache

    def attention(self, x: Node) -> Node:
        """See `Decoder.attention`."""
        net = self.net
        mixer = net.attention()
        assert isinstance(mixer, Attention)
        factors = None if net.slides else net.outer("rope_freqs.weight")
        fused = net.weight("attn_qkv.weight")
        both = None if fused is None else net.linear(fused, x, net.weight("attn_qkv.scale"))
        width, count, tokens = mixer.head_dim, mixer.kv_heads, x.ne[1]

        def part(name: str, heads: int, before: int) -> Node:
            if both is None:
                return net.projected(f"attn_{name}", x)
            return net.cont(
                net.view(both, (width * heads, tokens), both.nb[1:2], before * width * both.nb[0])
            )

        q = net.reshape(part("q", mixer.heads, 0), width, mixer.heads, tokens)
        q = net.rope(self.normed_head(q, "q"), self.positions, factors)
        if mixer.shares_cache:
            return attend(net, self.inputs.of(net), q, None, None)
        k = part("k", count, mixer.heads)
        has_values = both is not None or net.weight("attn_v.weight") is not None
        v = part("v", count, mixer.heads + count) if has_values else k
        k, v = net.reshape(k, width, count, tokens), net.reshape(v, width, count, tokens)
        k = net.rope(self.normed_head(k, "k"), self.positions, factors)
        return attend(net, self.inputs.of(net), q, k, net.rms_norm(v))

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        y = self.attention(self.normed(x, "attn_norm"))
        if net.is_last and self.crop == "layer":
            y, x = net.get_rows(y, self.rows), net.get_rows(x, self.rows)
        middle = net.add(self.normed(y, "post_attention_norm"), x)
        y = self.normed(self._mixed(middle), "post_ffw_norm", pinned=False)
        y = net.add(y, middle)
        if self.each is not None:
            y = self._with_own(y, self.each)
        scale = net.weight("layer_output_scale.weight")
        return y if scale is None else net.mul(y, scale)

    def _mixed(self, x: Node) -> Node:
        """The MLP, with experts beside it if there are any."""
        net = self.net
        mlp = dense(net, self.normed(x, "ffn_norm"), "gelu")
        router = net.weight("ffn_gate_inp.weight")
        if router is None:
            return mlp
        mlp = self.normed(mlp, "post_ffw_norm_1")
        given = self.normed(x, "pre_ffw_norm_2")
        scores = net.mul(net.scale(net.rms_norm(x)), net.needed("ffn_gate_inp.scale"))
        y = experts(net, given, activation="gelu", scores=net.linear(router, scores), scaled=False)
        return net.add(mlp, self.normed(y, "post_ffw_norm_2"))

    def _with_own(self, x: Node, each: Node) -> Node:
        """With what the layer's own embeddings add."""
        net = self.net
        y = net.unary("gelu", net.linear(net.needed("inp_gate.weight"), x))
        own = slice_of(net, each, net.layer)
        if net.is_last and self.crop == "layer":
            own = net.get_rows(own, self.rows)
        y = net.mul(y, own)
        return net.add(x, self.normed(net.linear(net.needed("proj.weight"), y), "post_norm"))


def build(net: Network) -> None:
    """The graph of a Gemma 4 model."""
    capped = net.value("final_logit_softcapping", _SOFTCAP) != 0
    Gemma4(net, Style(start="scaled", crop="after norm", softcap="always" if capped else "")).build()
