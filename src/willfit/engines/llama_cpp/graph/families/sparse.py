"""Latent attention to tokens an indexer chooses (`deepseek32.cpp`, `glm-dsa.cpp`, `dots3note.cpp`, `hy-v4.cpp`)."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.mixers import LatentAttention
from willfit.engines.llama_cpp.graph.attention import (
    IndexInputs,
    chosen_mask,
    index_inputs,
    indexed_keys,
)
from willfit.engines.llama_cpp.graph.families.decoder import Experts, Style
from willfit.engines.llama_cpp.graph.families.latent import Latent
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.streams import collapsed, mixed, spread, widened
from willfit.engines.llama_cpp.graph.tensor import Node

_STYLE = Style(experts=Experts(gating="sigmoid", stated=True, normalised=None, scaled=None))


class Sparse(Latent):
    """A layer without an indexer of its own attends to what the last one chose."""

    repeats = False  # each layer has an input of its own, which a mask is made of

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        self.width = net.meta.integer("attention.indexer.key_length", 0)
        self.count = net.meta.integer("attention.indexer.head_count", 0)
        self.most = net.meta.integer("attention.indexer.top_k", 0)
        self.index: IndexInputs | None = (
            index_inputs(net, self.width) if self.most and not net.batch.drafts else None
        )
        self.chosen: Node | None = None

    def queries(self, x: Node) -> Node:
        """See `Latent.queries`: the indexer reads the same latents."""
        net = self.net
        if net.batch.drafts:
            return super().queries(x)
        latent = net.layer_norm(net.mul_mat(net.needed("attn_q_a.weight"), x), "attn_q_a_norm")
        if net.cache.index is not None:
            self.chosen = self.choose(x, latent)
        sees_all = self.index is None or net.slides
        if sees_all:
            self.mask = None
        else:
            assert self.chosen is not None
            self.mask = chosen_mask(net, self.inputs.of(net).mask, self.chosen)
        return net.mul_mat(net.needed("attn_q_b.weight"), latent)

    def choose(self, x: Node, latent: Node) -> Node:
        """The cells that each token attends to."""
        net, index = self.net, self.index
        assert index is not None
        tokens = x.ne[1]
        q = net.reshape(
            net.mul_mat(net.needed("indexer.attn_q_b.weight"), latent), self.width, self.count, tokens
        )
        k = net.layer_norm(net.mul_mat(net.needed("indexer.attn_k.weight"), x), "indexer.k_norm", "norm")
        q = self.turned(net.rope(q, self.positions))
        k = self.turned(net.rope(net.reshape(k, self.width, 1, tokens), self.positions))
        keys = indexed_keys(net, k, index.rows)
        weights = net.mul_mat(net.needed("indexer.proj.weight"), x)
        streams = keys.ne[3]
        part = tokens // streams
        q = net.view(q, (*q.ne[:2], part, streams), (*q.nb[1:3], q.nb[3] // streams))
        steps = (weights.nb[1], weights.nb[2] // streams, weights.nb[3] // streams)
        weights = net.scale(net.view(weights, (self.count, part, 1, streams), steps))
        scores = net.lightning_indexer(q, keys, weights, index.mask)
        return net.cont(net.top_k(scores, min(scores.ne[0], self.most)))

    def turned(self, x: Node) -> Node:
        """Queries or keys of the indexer times a Hadamard matrix."""
        assert self.index is not None
        return self.net.mul_mat(self.index.rotation, x)


class Dots3(Sparse):
    """Most layers have a window, and latents of other widths; the outputs of heads are gated."""

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        mixer = self.net.attention()
        assert isinstance(mixer, LatentAttention)
        self.heads, self.rank, self.rope = mixer.heads, mixer.kv_rank, mixer.rope_dim
        self.key, self.value = mixer.nope_dim + mixer.rope_dim, mixer.value_dim
        return super().layer(x)

    def shared_key(self, x: Node) -> Node:
        """See `Latent.shared_key`."""
        return self.net.layer_norm(x, "attn_k_norm")


class HyV4(Sparse):
    """Parallel residual streams; indexers do not rotate, and there may be none; outputs are gated."""

    def build(self) -> None:
        """See `Decoder.build`."""
        net = self.net
        x = widened(net, net.embedded())
        for index in range(len(net.order)):
            net.layer = index
            x = self.layer(x)
        net.layer = -1
        width, count, tokens = x.ne[:3]
        x = net.get_rows(net.reshape(x, width * count, tokens), self.rows)
        x = collapsed(net, net.reshape(x, width, count, x.ne[1]), "output_hc", copies=True)
        result = self.normed(x, "output_norm")
        net.finish(result, self.logits(result))

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        parts = mixed(net, x, "hc_attn", mixes=False)
        x = spread(net, self.attention(self.normed(parts.x, "attn_norm")), x, parts)
        parts = mixed(net, x, "hc_ffn", mixes=False)
        return spread(net, self.feed_forward(self.normed(parts.x, "ffn_norm")), x, parts)

    def turned(self, x: Node) -> Node:
        """See `Sparse.turned`."""
        return x


def build(net: Network) -> None:
    """The graph of one of these models."""
    made = {"dots3note": Dots3, "hy_v4": HyV4}.get(net.meta.architecture, Sparse)
    gated = net.weights.get("blk.0.attn_gate.weight") is not None
    made(net, replace(_STYLE, gate="sigmoid" if gated else "")).build()
