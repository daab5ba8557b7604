"""Latent attention: DeepSeek-V2 and V3, Mistral 4, MiniCPM3, PLM (`deepseek2.cpp`, `minicpm3.cpp`, `plm.cpp`)."""

from __future__ import annotations

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.engines.llama_cpp.graph.attention import attend, attend_latents
from willfit.engines.llama_cpp.graph.chosen_latents import attend_chosen
from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Experts, Style
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node, row_bytes

#: GLM-4.7-Flash, whose router's scores are sigmoids where its file does not say: layers and tokens.
_GLM_LAYERS = (47, 48)
_GLM_VOCABULARY = 154880


class Latent(Decoder):
    """A decoder whose keys and values are made from latents: in the file's widths, or of absorbed projections.

    Attributes
    ----------
    flat
        Parts of queries are looked at where heads lie side by side.
    """

    flat = False

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        meta = net.meta
        mixer = next(
            mixer
            for layer in net.layers
            for mixer in layer.mixers
            if isinstance(mixer, Attention | LatentAttention)
        )
        self.absorbed = isinstance(mixer, LatentAttention)
        self.key = mixer.nope_dim + mixer.rope_dim if isinstance(mixer, LatentAttention) else mixer.head_dim
        self.value = mixer.value_dim
        self.rope = meta.integer("rope.dimension_count", self.key)
        self.rank = meta.integer("attention.kv_lora_rank", 0)
        self.heads = mixer.heads
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
        shared = self.rotated(self.shared_key(shared), factors)
        latent = net.layer_norm(latent, "attn_kv_a_norm")
        project = "" if self.style.gate else "attn_output"
        if self.absorbed:
            y = self.absorbing(q, latent, shared, project)
        else:
            y = self.expanding(q, latent, shared, factors, project)
        return y if project else net.linear(net.needed("attn_output.weight"), self.gated(y, x))

    def shared_key(self, x: Node) -> Node:
        """What all heads' keys share, before the rotation."""
        return x

    def rotated(self, x: Node, factors: Node | None = None) -> Node:
        """Queries or keys with rotary positions."""
        return self.net.rope(x, self.positions, factors)

    def queries(self, x: Node) -> Node:
        """Queries as width x heads x tokens."""
        net = self.net
        if net.weight("attn_q.weight") is not None:
            q = net.mul_mat(net.needed("attn_q.weight"), x)
        else:
            q = net.layer_norm(net.mul_mat(net.needed("attn_q_a.weight"), x), "attn_q_a_norm")
            q = net.mul_mat(net.needed("attn_q_b.weight"), q)
        if self.flat or net.batch.drafts:
            return q
        return net.reshape(q, self.key, self.heads, x.ne[1])

    def absorbing(self, q: Node, latent: Node, shared: Node, project: str) -> Node:
        """Attention among latents: queries are projected to them."""
        net = self.net
        plain = self.key - self.rope
        tokens = net.batch.tokens
        steps = (row_bytes(q.type, self.key), row_bytes(q.type, self.key) * self.heads)
        parts = net.view(q, (plain, self.heads, tokens), steps)
        rotated = net.view(q, (self.rope, self.heads, tokens), steps, row_bytes(q.type, plain))
        rotated = self.rotated(rotated)
        if net.era.chooses_latents:
            return attend_chosen(net, self.inputs.of(net).mask, parts, rotated, latent, shared)
        parts = net.mul_mat(net.needed("attn_k_b.weight"), net.permute(parts, 0, 2, 1, 3))
        q = net.concat(net.permute(parts, 0, 2, 1, 3), rotated, 0)
        latent = net.reshape(latent, self.rank, 1, tokens)
        k = net.concat(latent, shared, 0)
        if self.temperature is not None:
            q = net.mul(q, self.temperature)
        up, sinks = net.weight("attn_v_b.weight"), net.weight("attn_sinks.weight")
        return attend_latents(net, self.inputs.of(net), q, k, latent, up, self.mask, project, sinks)

    def expanding(self, q: Node, latent: Node, shared: Node, factors: Node | None, project: str) -> Node:
        """Attention among keys and values that are made from the latents."""
        net = self.net
        plain, tokens = self.key - self.rope, net.batch.tokens
        q = net.reshape(q, self.key, self.heads, tokens) if self.flat else q
        both = net.mul_mat(net.needed("attn_kv_b.weight"), latent)
        width = plain + self.value
        steps = (row_bytes(both.type, width), row_bytes(both.type, width) * self.heads)
        keys = net.view(both, (plain, self.heads, tokens), steps)
        v = net.cont(net.view(both, (self.value, self.heads, tokens), steps, row_bytes(both.type, plain)))
        if net.era.rotates_apart:
            steps = q.nb[1:3]
            turned = self.rotated(
                net.view(q, (self.rope, self.heads, tokens), steps, row_bytes(q.type, plain))
            )
            q = net.concat(net.view(q, (plain, self.heads, tokens), steps), turned, 0)
        else:
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
