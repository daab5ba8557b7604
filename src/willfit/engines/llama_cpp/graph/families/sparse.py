"""Latent attention to the tokens that an indexer chooses (`deepseek32.cpp`, `glm-dsa.cpp`)."""

from __future__ import annotations

from willfit.engines.llama_cpp.graph.attention import IndexInputs, chosen_mask, index_inputs, indexed_keys
from willfit.engines.llama_cpp.graph.families.decoder import Experts, Style
from willfit.engines.llama_cpp.graph.families.latent import Latent
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node

_STYLE = Style(experts=Experts(stated=True, normalised=None, scaled=None))


class Sparse(Latent):
    """A layer without an indexer of its own attends to what the last one chose."""

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        self.width = net.meta.integer("attention.indexer.key_length")
        self.count = net.meta.integer("attention.indexer.head_count")
        self.most = net.meta.integer("attention.indexer.top_k")
        self.index: IndexInputs = index_inputs(net, self.width)
        self.chosen: Node | None = None

    def queries(self, x: Node) -> Node:
        """See `Latent.queries`: the indexer reads the same latents."""
        net = self.net
        latent = net.layer_norm(net.mul_mat(net.needed("attn_q_a.weight"), x), "attn_q_a_norm")
        if net.cache.index is not None:
            self.chosen = self.choose(x, latent)
        assert self.chosen is not None
        self.mask = chosen_mask(net, self.inputs.of(net).mask, self.chosen)
        return net.mul_mat(net.needed("attn_q_b.weight"), latent)

    def choose(self, x: Node, latent: Node) -> Node:
        """The cells that each token attends to."""
        net, index = self.net, self.index
        tokens = x.ne[1]
        q = net.reshape(
            net.mul_mat(net.needed("indexer.attn_q_b.weight"), latent), self.width, self.count, tokens
        )
        k = net.layer_norm(net.mul_mat(net.needed("indexer.attn_k.weight"), x), "indexer.k_norm", "norm")
        q = net.mul_mat(index.rotation, net.rope(q, self.positions))
        k = net.mul_mat(index.rotation, net.rope(net.reshape(k, self.width, 1, tokens), self.positions))
        keys = indexed_keys(net, k, index.rows)
        weights = net.mul_mat(net.needed("indexer.proj.weight"), x)
        streams = keys.ne[3]
        part = tokens // streams
        q = net.view(q, (*q.ne[:2], part, streams), (*q.nb[1:3], q.nb[3] // streams))
        steps = (weights.nb[1], weights.nb[2] // streams, weights.nb[3] // streams)
        weights = net.scale(net.view(weights, (self.count, part, 1, streams), steps))
        scores = net.lightning_indexer(q, keys, weights, index.mask)
        return net.cont(net.top_k(scores, min(scores.ne[0], self.most)))


def build(net: Network) -> None:
    """The graph of one of these models."""
    Sparse(net, _STYLE).build()
