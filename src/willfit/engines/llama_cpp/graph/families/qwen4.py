"""Qwen3.8-Flash-Next: parallel residual streams, attention to blocks that an indexer chooses (`qwen4exp.cpp`)."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.llama_cpp.graph.attention import chosen_mask, indexed_keys
from willfit.engines.llama_cpp.graph.families.gated_delta import STYLE, GatedDelta
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.recurrent import by_sequence, kept, tokens_of_each
from willfit.engines.llama_cpp.graph.tensor import Node


@dataclass(frozen=True, slots=True)
class _BlockInputs:
    """What indexers of one compression are given.

    Attributes
    ----------
    rows
        Where new keys go.
    blocks_of_cells, cells_of_blocks
        Which block each cell is of, and the other way round.
    positions
        Of the blocks, four of each.
    bias
        Which blocks each token sees.
    """

    rows: Node
    blocks_of_cells: Node
    cells_of_blocks: Node
    positions: Node
    bias: Node


class Qwen4(GatedDelta):
    """Layers mix the streams to one, and add what they compute to each of them."""

    def __init__(self, net: Network) -> None:
        super().__init__(net, STYLE)
        self.streams = net.meta.integer("hyper_connection.count")
        self.index_width = net.meta.integer("attention.indexer.key_length")
        self.index_heads = net.meta.integer("attention.indexer.head_count")
        self.blocks: dict[int, _BlockInputs] = {}

    def build(self) -> None:
        """See `Decoder.build`."""
        net = self.net
        x = net.embedded()
        memory = self.remembered()
        x = net.repeat(net.reshape(x, net.hidden, 1, x.ne[1]), net.hidden, self.streams, x.ne[1], 1)
        for index in range(len(net.order)):
            net.layer = index
            if memory is not None and net.weight("ple_key.weight") is not None:
                x = self.with_memory(x, memory)
            x = self.layer(x)
        net.layer = -1
        result, _ = self.mixed(x, "output_hc")
        net.finish(result, self.logits(result))

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        y, shares = self.mixed(x, "hc_attn")
        assert shares is not None
        net.expand(y)
        y = self.attention(y)
        if net.is_last:
            y, shares = net.get_rows(y, self.rows), net.get_rows(shares, self.rows)
            x = net.get_rows(net.reshape(x, net.hidden * self.streams, x.ne[2]), self.rows)
            x = net.reshape(x, net.hidden, self.streams, x.ne[1])
        x = self.combined(x, y, shares)
        y, shares = self.mixed(x, "hc_ffn")
        assert shares is not None
        return net.pinned(self.combined(x, self.feed_forward(y), shares))

    # Streams

    def mixed(self, x: Node, stem: str) -> tuple[Node, Node | None]:
        """The mean of gated streams, and what each of them gets of what is made of it."""
        net = self.net

        def weight(name: str) -> Node | None:
            leaf = f"{stem}_{name}.weight"
            return net.weight(leaf) if net.layer >= 0 else net.outer(leaf)

        norm, down, up = weight("norm"), weight("down"), weight("up")
        assert norm is not None
        assert down is not None
        assert up is not None
        tokens = x.ne[2]
        wide = (net.hidden, self.streams, tokens)
        y = net.reshape(net.mul(net.rms_norm(x), norm), net.hidden * self.streams, tokens)
        gate = net.mul_mat(up, net.unary("silu", net.scale(net.mul_mat(down, y))))
        if net.layer >= 0:
            inject = weight("inject")
            assert inject is not None
            result = net.weighted_streams(net.reshape(y, *wide), net.reshape(gate, *wide))
            return result, net.mul_mat(inject, y)
        gated = net.reshape(net.mul(y, net.unary("sigmoid", gate)), *wide)
        parts = [
            net.view(gated, (net.hidden, tokens), (gated.nb[2],), stream * gated.nb[1])
            for stream in range(self.streams)
        ]
        total = net.cont(parts[0])
        for part in parts[1:]:
            total = net.add(total, part)
        return net.scale(total), None

    def combined(self, x: Node, y: Node, shares: Node) -> Node:
        """The streams with shares of what a layer computes."""
        net = self.net
        return net.spread_streams(y, x, net.scale(net.unary("sigmoid", net.scale(shares))))

    # The n-gram memory

    def remembered(self) -> Node | None:
        """What the memory has of each token's n-grams; None for models without one."""
        net = self.net
        table = net.outer("per_layer_token_embd.weight")
        if table is None:
            return None
        count = (net.meta.integer("ple.ngram_size") - 1) * net.meta.integer("ple.heads_per_ngram")
        tokens = net.batch.tokens
        found = net.get_rows(table, net.input("I32", count * tokens, name="n-grams"))
        found = net.reshape(found, table.ne[0] * count, tokens)
        net.expand(found)
        return found

    def with_memory(self, x: Node, memory: Node) -> Node:
        """The streams with what the memory gives each of them, and its convolution over time."""
        net = self.net
        key = net.mul_mat(net.needed("ple_key.weight"), memory)
        value = net.mul_mat(net.needed("ple_value.weight"), memory)
        tokens = x.ne[2]
        query = self.normed_streams(x, "ple_norm_query")
        key = self.normed_streams(key, "ple_norm_key")
        score = net.scale(net.sum_rows(net.mul(key, query)))
        size = net.sqrt(net.clamp(net.unary("abs", score)))
        gate = net.unary("sigmoid", net.mul(net.unary("sgn", score), size))
        value = net.reshape(value, net.hidden, 1, tokens)
        given = net.mul(net.repeat(value, net.hidden, self.streams, tokens, 1), gate)
        wide = net.hidden * self.streams
        y = self.normed_streams(net.reshape(given, wide, tokens), "ple_norm_conv")
        y = self.convolved(net.reshape(y, wide, tokens))
        return net.add(x, net.add(given, net.reshape(net.cont(y), net.hidden, self.streams, tokens)))

    def normed_streams(self, x: Node, stem: str) -> Node:
        """The norm of each stream."""
        net = self.net
        x = net.reshape(x, net.hidden, self.streams, net.batch.tokens)
        return net.mul(net.rms_norm(x), net.needed(f"{stem}.weight"))

    def convolved(self, x: Node) -> Node:
        """A convolution over every n-th token, as a sum of shifted copies."""
        net = self.net
        assert net.cache.p is not None
        kernel = net.needed("ple_conv1d.weight")
        taps, channels = kernel.ne[:2]
        step = net.meta.integer("ple.ngram_size")
        given = self.behind_kept(by_sequence(net, x), net.cache.p)
        shape = (tokens_of_each(net), channels, net.batch.sequences)
        total: Node | None = None
        for tap in range(taps):
            shifted = net.view(given, shape, given.nb[1:3], tap * step * given.nb[0])
            shifted = net.cont(net.transpose(shifted))
            weights = net.cont(net.view(kernel, (1, channels), kernel.nb[1:2], tap * kernel.nb[0]))
            weights = net.reshape(weights, channels)
            if weights.type != "F32":
                weights = net.cast(weights, "F32")
            term = net.mul(shifted, weights)
            total = term if total is None else net.add(total, term)
        assert total is not None
        return net.unary("silu", total)

    # States

    def behind_earlier(self, x: Node) -> Node:
        """See `GatedDelta.behind_earlier`."""
        assert self.net.cache.r is not None
        return self.behind_kept(x, self.net.cache.r)

    def behind_kept(self, x: Node, cache: Node) -> Node:
        """Inputs kept from before, then new ones; copies of the last of them are kept."""
        net = self.net
        channels, sequences = x.ne[0], x.ne[2]
        width = cache.ne[0] // channels
        before = net.reshape(kept(net, self.states, cache), width, channels, sequences)
        given = net.concat(before, net.transpose(x), 0)
        for slot in range(net.snapshots):
            start = max(0, given.ne[0] - width - slot)
            last = net.view(given, (width, channels, sequences), given.nb[1:3], start * given.nb[0])
            place = slot * net.batch.cached * cache.nb[1]
            target = net.view(cache, (cache.ne[0], sequences), (cache.nb[1],), place)
            net.expand(net.cpy(net.cont(last), target))
        return given

    def gate_of_outputs(self, z: Node) -> Node:
        """See `GatedDelta.gate_of_outputs`."""
        return self.net.unary("sigmoid", z)

    # The indexer

    def seen(self, x: Node) -> Node | None:
        """See `GatedDelta.seen`: the cells of the best blocks."""
        net = self.net
        ratio = net.meta.integer("attention.compress_ratios", 0, layer=net.layer)
        if net.cache.index is None or not ratio:
            return None
        mask = self.inputs.of(net).mask
        return chosen_mask(net, mask, self.chosen(x, mask, ratio))

    def chosen(self, x: Node, mask: Node, ratio: int) -> Node:
        """The cells of the blocks with the best scores."""
        net, width = self.net, self.index_width
        cells, tokens, _, streams = mask.ne
        blocks = -(-cells // ratio)
        inputs = self.blocks.get(ratio)
        if inputs is None:
            inputs = self.blocks[ratio] = _BlockInputs(
                net.input("I64", net.batch.tokens, name="index rows"),
                net.input("I32", cells, streams, name="blocks of cells"),
                net.input("I32", ratio * blocks, streams, name="cells of blocks"),
                net.input("I32", 4 * blocks * streams, name="positions of blocks"),
                net.input("F32", blocks, tokens, streams, name="visible blocks"),
            )
        k = net.mul_mat(net.needed("indexer.k_proj.weight"), x)
        keys = indexed_keys(net, net.reshape(k, width, 1, net.batch.tokens), inputs.rows)
        pooled = self.pooled(net.view(keys, (width, cells, streams), keys.nb[2:4]), inputs, ratio)
        q = net.mul_mat(net.needed("indexer.q_proj.weight"), x)
        q = net.layer_norm(net.reshape(q, width, self.index_heads, net.batch.tokens), "indexer.q_norm")
        q = net.rope(q, self.positions)
        scores = net.mul_mat(pooled, net.reshape(q, width, self.index_heads * tokens, streams))
        scores = net.unary("relu", net.reshape(scores, blocks, self.index_heads, tokens, streams))
        parts = [
            net.view(scores, (blocks, tokens, streams), scores.nb[2:4], head * scores.nb[1])
            for head in range(self.index_heads)
        ]
        total = net.cont(parts[0])
        for part in parts[1:]:
            total = net.add(total, part)
        total = net.add(total, inputs.bias)
        each = net.get_rows(net.cont(net.permute(total, 1, 0, 2, 3)), inputs.blocks_of_cells)
        each = net.cont(net.permute(each, 1, 0, 2, 3))
        mask = mask if mask.type == "F32" else net.cast(mask, "F32")
        each = net.add(each, net.reshape(mask, cells, tokens, streams))
        most = min(cells, net.meta.integer("attention.indexer.top_k") + ratio - 1)
        return net.reshape(net.cont(net.top_k(each, most)), most, tokens, 1, streams)

    def pooled(self, keys: Node, inputs: _BlockInputs, ratio: int) -> Node:
        """Means of the keys of each block, with positions."""
        net, width = self.net, self.index_width
        blocks, streams = inputs.cells_of_blocks.ne[0] // ratio, keys.ne[2]
        members = net.reshape(net.get_rows(keys, inputs.cells_of_blocks), width, ratio, blocks, streams)
        total: Node | None = None
        for index in range(ratio):
            part = net.view(members, (width, blocks, streams), members.nb[2:4], index * members.nb[1])
            part = net.cont(part)
            total = part if total is None else net.add(total, part)
        assert total is not None
        y = net.reshape(net.scale(total), width, blocks * streams, 1)
        y = net.reshape(net.layer_norm(y, "indexer.k_norm"), width, 1, blocks * streams)
        return net.reshape(net.rope(y, inputs.positions), width, blocks, streams)


def build(net: Network) -> None:
    """Build the graph."""
    Qwen4(net).build()
