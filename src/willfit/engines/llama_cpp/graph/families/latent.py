"""Latent attention: DeepSeek-V2 and V3, Mistral 4, MiniCPM3, PLM (`deepseek2.cpp`, `minicpm3.cpp`, `plm.cpp`)."""

from __future__ import annotations

from willfit.architectures.mixers import LatentAttention
from willfit.engines.llama_cpp.graph.attention import attend, attend_latents
from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Experts, Style
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node, row_bytes

#: GLM-4.7-Flash, whose router's scores are sigmoids where its file does not say: layers and tokens.
_GLM_LAYERS = (47, 48)
_GLM_VOCABULARY = 154880


class Latent(Decoder):
    """A decoder whose keys and values are made from latents: in the file's widths, or of absorbed projections."""

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        meta = net.meta
        self.absorbed = any(
            isinstance(mixer, LatentAttention) for layer in net.layers for mixer in layer.mixers
        )
        keys = meta.integer("attention.key_length")
        self.key = meta.integer("attention.key_length_mla", keys) if self.absorbed else keys
        self.value = meta.integer("attention.value_length")
        self.rope = meta.integer("rope.dimension_count", keys)
        self.rank = meta.integer("attention.kv_lora_rank", 0)
        self.heads = meta.integer("attention.head_count")
        self.mask: Node | None = None
        warms = net.value("attention.temperature_scale") and meta.architecture in ("deepseek2", "mistral4")
        self.temperature = net.temperature() if warms else None

    def attention(self, x: Node) -> Node:
        """See `Decoder.attention`."""
        net = self.net
        if net.weight("attn_kv_a_mqa.weight") is None:
            return super().attention(x)
        q = self.queries(x)
        packed = net.mul_mat(net.needed("attn_kv_a_mqa.weight"), x)
        step = row_bytes(packed.type, self.rank + self.rope)
        latent = net.view(packed, (self.rank, x.ne[1]), (step,))
        shared = net.view(packed, (self.rope, 1, x.ne[1]), (step, step), row_bytes(packed.type, self.rank))
        factors = self.factors()
        shared = self.rotated(shared, factors)
        latent = net.layer_norm(latent, "attn_kv_a_norm")
        project = "" if self.style.gate else "attn_output"
        if self.absorbed:
            y = self.absorbing(q, latent, shared, project)
        else:
            y = self.expanding(q, latent, shared, factors, project)
        return y if project else net.linear(net.needed("attn_output.weight"), self.gated(y, x))

    def rotated(self, x: Node, factors: Node | None = None) -> Node:
        """Queries or keys with rotary positions."""
        return self.net.rope(x, self.positions, factors)

    def queries(self, x: Node) -> Node:
        """Queries of all heads, whether heads are a dimension of their own or not."""
        net = self.net
        if net.weight("attn_q.weight") is not None:
            q = net.mul_mat(net.needed("attn_q.weight"), x)
        else:
            q = net.layer_norm(net.mul_mat(net.needed("attn_q_a.weight"), x), "attn_q_a_norm")
            q = net.mul_mat(net.needed("attn_q_b.weight"), q)
        return net.reshape(q, self.key, self.heads, x.ne[1])

    def absorbing(self, q: Node, latent: Node, shared: Node, project: str) -> Node:
        """Attention among latents: queries are projected to them."""
        net = self.net
        plain = self.key - self.rope
        tokens = latent.ne[1]
        steps = (row_bytes(q.type, self.key), row_bytes(q.type, self.key) * self.heads)
        parts = net.view(q, (plain, self.heads, tokens), steps)
        rotated = net.view(q, (self.rope, self.heads, tokens), steps, row_bytes(q.type, plain))
        rotated = self.rotated(rotated)
        parts = net.mul_mat(net.needed("attn_k_b.weight"), net.permute(parts, 0, 2, 1, 3))
        q = net.concat(net.permute(parts, 0, 2, 1, 3), rotated, 0)
        latent = net.reshape(latent, self.rank, 1, tokens)
        k = net.concat(latent, shared, 0)
        if self.temperature is not None:
            q = net.mul(q, self.temperature)
        up = net.weight("attn_v_b.weight")
        return attend_latents(net, self.inputs.of(net), q, k, latent, up, self.mask, project)

    def expanding(self, q: Node, latent: Node, shared: Node, factors: Node | None, project: str) -> Node:
        """Attention among keys and values that are made from the latents."""
        net = self.net
        plain, tokens = self.key - self.rope, q.ne[2]
        both = net.mul_mat(net.needed("attn_kv_b.weight"), latent)
        width = plain + self.value
        steps = (row_bytes(both.type, width), row_bytes(both.type, width) * self.heads)
        keys = net.view(both, (plain, self.heads, tokens), steps)
        v = net.cont(net.view(both, (self.value, self.heads, tokens), steps, row_bytes(both.type, plain)))
        q = self.rotated(q, factors)
        k = net.concat(keys, net.repeat(shared, self.rope, self.heads, tokens, 1), 0)
        if self.temperature is not None:
            q = net.mul(q, self.temperature)
        return attend(net, self.inputs.of(net), q, k, v, project=project)


class MiniCpm3(Latent):
    """Embeddings, additions and the last norm's result are scaled."""

    def weakened(self, x: Node) -> Node:
        """See `Decoder.weakened`."""
        return self.net.scale(x)

    def logits(self, x: Node) -> Node:
        """See `Decoder.logits`."""
        return super().logits(self.net.scale(x))


def build(net: Network) -> None:
    """The graph of one of these models."""
    meta = net.meta
    if meta.architecture == "minicpm3":
        MiniCpm3(net, Style(start="scaled", factors=True)).build()
        return
    if meta.architecture == "plm":
        Latent(net, Style(activation="relu_sqr")).build()
        return
    vocabulary = net.weights["token_embd.weight"].ne[1]
    glm = len(net.layers) in _GLM_LAYERS and vocabulary == _GLM_VOCABULARY
    how = Experts(gating="sigmoid" if glm else "softmax", stated=True, normalised=None, scaled=None)
    Latent(net, Style(experts=how)).build()
