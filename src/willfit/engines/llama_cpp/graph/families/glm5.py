"""GLM-5.3-Flash: delta attention, latents that an indexer chooses in pools, parallel streams (`glm5-next.cpp`)."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.llama_cpp.graph.attention import cached_keys, heads, store_keys
from willfit.engines.llama_cpp.graph.families.decoder import Experts, Style
from willfit.engines.llama_cpp.graph.families.kimi import KimiDelta
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.streams import mixed, spread, widened
from willfit.engines.llama_cpp.graph.tensor import Node

_STYLE = Style(experts=Experts(gating="sigmoid", stated=True, normalised=None, scaled=None))
#: Pools are padded to a multiple of this, the last of which is never used (`kpool_pad`).
_PADDING = 64
#: Batches of so few tokens read the chosen latents only.
_FEW = 16


@dataclass(frozen=True, slots=True)
class _PoolInputs:
    """What all indexers are given.

    Attributes
    ----------
    rows
        Where new keys go.
    cells, members
        Where each pool's key is, and the cells of its tokens.
    mask
        Which pools each token sees.
    tail
        Cells of tokens that are not in a pool yet.
    chosen
        Which of the chosen cells count.
    new, written
        Members of new pools, and where their keys go.
    """

    rows: Node
    cells: Node
    members: Node
    mask: Node
    tail: Node
    chosen: Node
    new: Node
    written: Node


class GlmNext(KimiDelta):
    """Layers without an indexer of their own attend to what the last one chose."""

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        meta, tokens = net.meta, net.batch.tokens
        self.index_width = meta.integer("attention.indexer.key_length")
        self.index_heads = meta.integer("attention.indexer.head_count")
        self.pool = meta.integer("attention.indexer.kpool")
        self.with_tail = meta.boolean("attention.indexer.kpool_select_tail", False)
        self.cells = next(cache.cells for cache in net.caches if cache.index is not None)
        made = self.cells // self.pool * net.batch.cached
        pools = max(_PADDING, -(-(made + 1) // _PADDING) * _PADDING)
        self.most = min(pools, meta.integer("attention.indexer.top_k") // self.pool)
        self.count = self.pool * self.most + (self.pool - 1 if self.with_tail else 0)
        new = max(made, 1)
        self.index = _PoolInputs(
            net.input("I64", tokens, name="index rows"),
            net.input("I32", pools, name="cells of pools"),
            net.input("I32", self.pool, pools, name="members of pools"),
            net.input("F16", pools, tokens, name="visible pools"),
            net.input("I32", self.pool - 1, tokens, name="tail"),
            net.input("F32", self.count, 1, 1, tokens, name="chosen cells"),
            net.input("I32", self.pool, new, name="members of new pools"),
            net.input("I64", new, name="cells of new pools"),
        )
        self.gathers = tokens <= _FEW and self.cells > self.count
        self.selection: Node | None = None

    def build(self) -> None:
        """See `Decoder.build`."""
        net, index = self.net, self.index
        x = net.embedded()
        for one in (index.cells, index.members, index.mask, index.tail, index.chosen):
            net.expand(one)
        x = widened(net, x)
        for number in range(len(net.order)):
            net.layer = number
            x = self.layer(x)
        net.layer = -1
        width, count, tokens = x.ne[:3]
        x = net.get_rows(net.reshape(x, width * count, tokens), self.rows)
        x = net.reshape(x, width, count, x.ne[1])
        result = self.normed(self.mean(x), "output_norm")
        net.finish(result, self.logits(result))

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        parts = mixed(net, x, "hc_attn")
        y = self.normed(parts.x, "attn_norm")
        net.expand(y)
        x = spread(net, self.attention(y), x, parts)
        parts = mixed(net, x, "hc_ffn")
        return spread(net, self.feed_forward(self.normed(parts.x, "ffn_norm")), x, parts)

    def mean(self, x: Node) -> Node:
        """The mean of the streams."""
        net = self.net
        width, count, tokens = x.ne[:3]
        parts = [net.view(x, (width, tokens), (x.nb[2],), stream * x.nb[1]) for stream in range(count)]
        total = parts[0]
        for part in parts[1:]:
            total = net.add(total, part)
        return net.scale(total)

    def decay(self, x: Node) -> Node:
        """See `KimiDelta.decay`."""
        return self.perhaps_bounded_decay(x)

    def attention(self, x: Node) -> Node:
        """See `Decoder.attention`."""
        net, tokens = self.net, x.ne[1]
        if net.cache.s is not None:
            return self.recurrent(x)
        latent = net.layer_norm(net.mul_mat(net.needed("attn_q_a.weight"), x), "attn_q_a_norm")
        q = net.reshape(net.mul_mat(net.needed("attn_q_b.weight"), latent), self.key, self.heads, tokens)
        k = net.layer_norm(net.mul_mat(net.needed("attn_kv_a_mqa.weight"), x), "attn_kv_a_norm")
        k = net.reshape(k, self.rank, 1, tokens)
        q = net.mul_mat(net.needed("attn_k_b.weight"), net.permute(q, 0, 2, 1, 3))
        q = net.permute(q, 0, 2, 1, 3)
        inputs = self.inputs.full
        assert inputs is not None
        assert net.cache.k is not None
        if net.cache.index is not None:
            self.selection = self.chosen_cells(x, latent)
            if not self.gathers:
                self.selection = self.chosen_mask(self.selection, inputs.mask)
        assert self.selection is not None
        net.expand(q)
        net.expand(k)
        net.expand(store_keys(net, net.cache.k, k, inputs.k_rows))
        up = net.needed("attn_v_b.weight")
        if self.gathers:
            net.expand(inputs.mask)
            y = self.gathered(q, self.selection, up)
        else:
            keys = cached_keys(net, net.cache, self.rank, 1)
            values = net.view(keys, keys.ne, keys.nb[1:])
            y = heads(net, q, keys, values, net.reshape(self.selection, *inputs.mask.ne), up=up)
        return net.mul_mat(net.needed("attn_output.weight"), y)

    def gathered(self, q: Node, chosen: Node, up: Node) -> Node:
        """Attention to copies of the chosen latents."""
        net = self.net
        cache = net.cache.k
        assert cache is not None
        rows = net.view(cache, (cache.ne[0], cache.ne[1] * cache.ne[2]), cache.nb[1:2])
        tokens = chosen.ne[1]
        k = net.get_rows(rows, net.reshape(chosen, self.count * tokens))
        k = net.reshape(k, self.rank, self.count, 1, tokens)
        scores = net.soft_max(net.mul_mat(k, net.permute(q, 0, 2, 3, 1)), self.index.chosen)
        y = net.mul_mat(up, net.mul_mat(net.cont(net.transpose(k)), scores))
        y = net.cont(net.permute(y, 0, 2, 1, 3))
        return net.reshape(y, y.ne[0] * self.heads, tokens)

    # The indexer

    def chosen_cells(self, x: Node, latent: Node) -> Node:
        """Cells of the pools with the best scores, and of tokens that are in none."""
        net, index = self.net, self.index
        tokens, width = x.ne[1], self.index_width
        q = net.mul_mat(net.needed("indexer.attn_q_b.weight"), latent)
        q = net.reshape(q, width, self.index_heads, tokens)
        keys = net.reshape(self.pooled(x), width, 1, index.cells.ne[0])
        weights = net.scale(net.mul_mat(net.needed("indexer.proj.weight"), x))
        scores = net.lightning_indexer(q, keys, weights, index.mask)
        best = net.top_k(scores, self.most)
        found = net.get_rows(net.reshape(scores, 1, scores.ne[0], tokens), best)
        order = net.argsort(net.reshape(found, self.most, tokens))
        best = net.get_rows(net.reshape(net.cast(best, "F32"), 1, self.most, tokens), order)
        best = net.cast(net.cont(net.reshape(best, self.most, tokens)), "I32")
        cells = net.get_rows(index.members, net.reshape(best, self.most * tokens))
        cells = net.reshape(cells, self.pool * self.most, tokens)
        return net.concat(cells, index.tail, 0) if self.with_tail else cells

    def pooled(self, x: Node) -> Node:
        """Keys of all pools, after those of new ones were written."""
        net, index, width = self.net, self.index, self.index_width
        cache = net.cache.index
        assert cache is not None
        k = net.layer_norm(net.mul_mat(net.needed("indexer.attn_k.weight"), x), "indexer.k_norm", "norm")
        gate = net.mul_mat(net.needed("indexer_compressor_gate.weight"), x)
        none = net.fill(net.new("F32", width, x.ne[1]))
        packed = net.concat(net.concat(k, gate, 0), none, 0)
        packed = net.reshape(packed, packed.ne[0], 1, x.ne[1])
        net.expand(store_keys(net, cache, packed, index.rows))
        cells = cache.ne[1] * cache.ne[2]
        both = net.view(cache, (2 * width, cells), cache.nb[1:2])
        made = net.view(cache, (width, cells), cache.nb[1:2], cache.nb[1] * 2 // 3)
        new = index.new.ne[1]
        rows = net.get_rows(both, net.reshape(index.new, self.pool * new))
        rows = net.reshape(rows, 2 * width, self.pool, new)
        shape = (width, self.pool, new)
        keys = net.view(rows, shape, rows.nb[1:3])
        gates = net.view(rows, shape, rows.nb[1:3], width * rows.nb[0])
        gates = net.add(gates, net.needed("indexer_compressor_ape.weight"))
        gates = net.cont(net.permute(gates, 1, 0, 2, 3))
        shares = net.soft_max(net.reshape(gates, self.pool, width * new))
        shares = net.reshape(shares, self.pool, width, new)
        keys = net.cont(net.permute(keys, 1, 0, 2, 3))
        sums = net.reshape(net.sum_rows(net.mul(shares, keys)), width, new)
        net.expand(net.set_rows(made, sums, index.written))
        return net.get_rows(made, index.cells)

    def chosen_mask(self, chosen: Node, mask: Node) -> Node:
        """A mask that leaves only the chosen cells; those that do not count are written behind it."""
        net, count = self.net, self.count
        tokens, cells = chosen.ne[1], self.cells
        seed = net.cast(net.view(chosen, (1,)), "F32")
        hidden = net.fill(seed if mask.type == "F32" else net.cast(seed, mask.type))
        hidden = net.repeat(hidden, 1, cells + count, tokens, 1)
        hidden = net.reshape(hidden, 1, cells + count, tokens)
        shown = net.reshape(net.repeat(net.fill(seed), 1, count, tokens, 1), 1, count, tokens)
        live = net.unary("exp", net.reshape(self.index.chosen, count, tokens))
        behind = net.arange(count)
        places = net.sub(net.cast(chosen, "F32"), behind)
        places = net.cast(net.add(net.mul(places, live), behind), "I32")
        y = net.set_rows(hidden, shown, net.reshape(places, count, tokens, 1))
        y = net.view(y, (cells, tokens), y.nb[2:3])
        return net.add(y, net.reshape(mask, cells, tokens))


def build(net: Network) -> None:
    """Build the graph."""
    GlmNext(net, _STYLE).build()
