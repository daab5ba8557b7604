"""MiniMax-M3: each group of heads attends to the blocks that its indexer's head chooses (`minimax-m3.cpp`)."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.mixers import Attention
from willfit.engines.llama_cpp.graph.attention import (
    cached_keys,
    cached_values,
    indexed_keys,
    rotated,
    stored,
)
from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Experts, Style
from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node

_GATED = "swiglu_oai"
_STYLE = Style(
    activation=_GATED, experts=Experts(stated=True, normalised=None, activation=_GATED, scaled=None)
)

#: Positions that indexers see of a cache that is still empty, for which graphs are reserved. What they need of more
#: positions is allocated when a sequence has grown.
_POSITIONS = 256


@dataclass(frozen=True, slots=True)
class _BlockInputs:
    """What all indexers are given.

    Attributes
    ----------
    rows
        Where new keys go.
    bias
        Blocks that are chosen in any case.
    visible
        Positions that each token sees.
    cells
        Which cell each position is in.
    blocks
        Which block each cell is of.
    mask
        Cells that each token sees, as F32.
    """

    rows: Node
    bias: Node
    visible: Node
    cells: Node
    blocks: Node
    mask: Node


class MiniMaxM3(Decoder):
    """Without flash attention, or with sequences in one cache, all layers attend to everything."""

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        self.width = net.meta.integer("attention.indexer.key_length")
        self.size = net.meta.integer("attention.indexer.block_size")
        self.groups = net.meta.integer("attention.indexer.head_count")
        batch = net.batch
        self.index: _BlockInputs | None = None
        if not batch.flash_attn or (batch.cached > 1 and batch.kv_unified):
            return
        assert self.inputs.full is not None
        mask = self.inputs.full.mask
        cells, _, _, streams = mask.ne
        positions = -(-_POSITIONS // self.size) * self.size
        self.index = _BlockInputs(
            net.input("I64", batch.tokens, name="index rows"),
            net.input("F32", positions // self.size, batch.tokens, name="block bias"),
            net.input("F32", positions, batch.tokens, name="visible positions"),
            net.input("I32", positions, streams, name="cells of positions"),
            net.input("I32", cells, streams, name="blocks of cells"),
            net.cast(mask, "F32"),
        )

    def attention(self, x: Node) -> Node:
        """See `Decoder.attention`."""
        net, index, inputs = self.net, self.index, self.inputs.full
        if index is None or net.weight("indexer.q_proj.weight") is None:
            return super().attention(x)
        assert inputs is not None
        q, k, v = self.projections(x)
        q, k = net.rope(q, self.positions), net.rope(k, self.positions)
        iq = self.projected("q", x, self.groups)
        keys = indexed_keys(net, self.projected("k", x, 1), index.rows)
        q, k = rotated(net, q, inputs.k_rotation), rotated(net, k, inputs.k_rotation)
        v = rotated(net, v, inputs.v_rotation)
        for one in (q, k, v):
            net.expand(one)
        stored(net, inputs, k, v)
        mixer = net.attention()
        assert isinstance(mixer, Attention)
        k = cached_keys(net, net.cache, mixer.head_dim, mixer.kv_heads)
        v = cached_values(net, net.cache, mixer.value_dim, mixer.kv_heads)
        y: Node | None = None
        for stream in range(keys.ne[3]):
            mask = self.mask_of(stream, iq, keys, index)
            part = self.attended_by_groups(stream, q, k, v, mask)
            y = part if y is None else net.concat(y, part, 1)
        assert y is not None
        return net.projected("attn_output", rotated(net, y, inputs.v_rotation))

    def projected(self, which: str, x: Node, count: int) -> Node:
        """Queries or keys of the indexer."""
        net = self.net
        y = net.mul_mat(net.needed(f"indexer.{which}_proj.weight"), x)
        y = net.layer_norm(net.reshape(y, self.width, count, x.ne[1]), f"indexer.{which}_norm")
        return net.rope(y, self.positions)

    def mask_of(self, stream: int, q: Node, keys: Node, index: _BlockInputs) -> Node:
        """A mask for each group that leaves only cells of the chosen blocks."""
        net, width, groups = self.net, self.width, self.groups
        cells, tokens = index.mask.ne[:2]
        positions, blocks = index.visible.ne[0], index.bias.ne[0]
        first = stream * tokens
        q = net.view(q, (width, groups, tokens), q.nb[1:3], first * q.nb[2])
        keys = net.view(keys, (width, cells), keys.nb[2:3], stream * keys.nb[3])
        places = net.view(index.cells, (positions,), (), stream * index.cells.nb[1])
        step = index.visible.nb[1]
        visible = net.view(index.visible, (positions, 1, tokens), (step, step), first * step)
        blocks_of = net.view(index.blocks, (cells,), (), stream * index.blocks.nb[1])
        steps = (index.mask.nb[1], index.mask.nb[3])
        mask = net.view(index.mask, (cells, tokens, 1), steps, stream * index.mask.nb[3])
        step = index.bias.nb[1]
        bias = net.view(index.bias, (blocks, 1, tokens), (step, step), first * step)
        scores = net.mul_mat(net.get_rows(keys, places), net.reshape(q, width, groups * tokens))
        scores = net.add_in_place(net.reshape(scores, positions, groups, tokens), visible)
        best = net.add(net.max_pool(scores, self.size), bias)
        count = min(net.meta.integer("attention.indexer.top_k"), blocks)
        chosen = net.top_k(best, count)
        hidden = net.repeat(net.cast(net.scale(bias), "F16"), blocks, groups, tokens, 1)
        shown = net.scale(net.cast(chosen, "F32"))
        y = net.set_rows(
            net.reshape(hidden, 1, blocks, groups * tokens),
            net.reshape(shown, 1, count, groups * tokens),
            net.reshape(chosen, count, groups * tokens),
        )
        y = net.cont(net.permute(net.reshape(y, blocks, groups, tokens), 0, 2, 1, 3))
        y = net.cont(net.transpose(net.reshape(y, blocks, tokens * groups)))
        y = net.cont(net.transpose(net.get_rows(y, blocks_of)))
        y = net.add_in_place(net.reshape(y, cells, tokens, groups), mask)
        return net.cast(net.reshape(y, cells, tokens, 1, groups), "F16")

    def attended_by_groups(self, stream: int, q: Node, k: Node, v: Node, mask: Node) -> Node:
        """Attention of all groups, each with a mask of its own."""
        net, groups = self.net, self.groups
        width, count = q.ne[:2]
        tokens = mask.ne[1]
        q = net.view(q, (width, count, tokens), q.nb[1:3], stream * tokens * q.nb[2])
        k, v = (net.view(one, (*one.ne[:3], 1), one.nb[1:], stream * one.nb[3]) for one in (k, v))
        k, v = net.permute(k, 0, 3, 1, 2), net.permute(v, 0, 3, 1, 2)
        q = net.permute(net.reshape(q, width, count // groups, groups, tokens), 0, 2, 3, 1)
        y = net.permute(net.flash_attn(q, k, v, mask), 0, 1, 3, 2)
        if not y.is_contiguous:
            y = net.cont(y)
        return net.reshape(y, width * count, tokens)


def build(net: Network) -> None:
    """Build the graph."""
    MiniMaxM3(net, _STYLE).build()
