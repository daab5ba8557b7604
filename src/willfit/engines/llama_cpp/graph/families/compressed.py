"""DeepSeek-V4: attention to a window and to compressed entries, in parallel residual streams (`deepseek4.cpp`)."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.mixers import CompressedAttention
from willfit.engines.llama_cpp.graph.attention import chosen_mask, heads, rotated, store_keys, stored_keys
from willfit.engines.llama_cpp.graph.families.decoder import Decoder, Experts, Style
from willfit.engines.llama_cpp.graph.feed_forward import experts
from willfit.engines.llama_cpp.graph.network import Compressor, Network
from willfit.engines.llama_cpp.graph.streams import collapsed, mixed, spread, widened
from willfit.engines.llama_cpp.graph.tensor import Node

_STYLE = Style(experts=Experts(stated=True, normalised=None, scaled=None))


@dataclass(frozen=True, slots=True)
class _CompressorInputs:
    """What compressors of one kind are given.

    Attributes
    ----------
    positions
        Of the tokens within their entries.
    kept_from, kept_at
        Which tokens are kept for entries that are not complete, and where.
    restored_from, restored_at, saved_from, saved_at
        Earlier states; None where none are kept.
    read
        Which tokens entries are made from.
    written, entry_positions
        Where entries go, and their positions.
    mask
        Which entries each token sees.
    rotation
        A Hadamard matrix; None where nothing is rotated.
    """

    positions: Node
    kept_from: Node
    kept_at: Node
    restored_from: Node | None
    restored_at: Node | None
    saved_from: Node | None
    saved_at: Node | None
    read: Node
    written: Node
    entry_positions: Node
    mask: Node
    rotation: Node | None


def _inputs(net: Network, compressor: Compressor, mask: str) -> _CompressorInputs:
    """The inputs for a reserved batch (`dsv4_build_reserve_comp_plan`)."""
    batch = net.batch
    ratio = compressor.ratio
    blocks = batch.tokens // ratio + batch.sequences
    rows = compressor.rows * batch.cached
    kept = min(batch.tokens, rows)
    earlier = net.snapshots - 1

    def numbers(count: int, name: str) -> Node | None:
        return net.input("I32", count, name=name) if count else None

    rotation = compressor.rotation
    return _CompressorInputs(
        net.input("I32", batch.tokens, name="positions in entries"),
        net.input("I32", kept, name="kept tokens"),
        net.input("I32", kept, name="kept rows"),
        numbers(rows if earlier else 0, "restored rows"),
        numbers(rows if earlier else 0, "rows restored to"),
        numbers(rows * earlier, "saved rows"),
        numbers(rows * earlier, "rows saved to"),
        net.input("I32", (2 if compressor.overlaps else 1) * ratio * blocks, name="read tokens"),
        net.input("I64", blocks, name="written entries"),
        net.input("I32", blocks, name="positions of entries"),
        net.input(
            mask, compressor.cells, batch.tokens // batch.sequences, 1, batch.sequences, name="entry mask"
        ),
        net.input("F32", rotation, rotation, name="entry rotation") if rotation else None,
    )


class DeepSeek4(Decoder):
    """Layers without compression see a window only."""

    def __init__(self, net: Network, style: Style) -> None:
        super().__init__(net, style)
        self.kinds: dict[tuple[int, bool], _CompressorInputs] = {}

    def build(self) -> None:
        """See `Decoder.build`."""
        net = self.net
        x = net.embedded()
        assert self.inputs.windowed is not None
        net.expand(self.inputs.windowed.mask)
        x = widened(net, x)
        for index in range(len(net.order)):
            net.layer = index
            x = self.layer(x)
        net.layer = -1
        width, count, tokens = x.ne[:3]
        x = net.get_rows(net.reshape(x, width * count, tokens), self.rows)
        x = net.reshape(x, width, count, x.ne[1])
        result = self.normed(collapsed(net, x, "output_hc"), "output_norm")
        net.finish(result, self.logits(result))

    def layer(self, x: Node) -> Node:
        """See `Decoder.layer`."""
        net = self.net
        parts = mixed(net, x, "hc_attn")
        y = self.attention(self.normed(parts.x, "attn_norm"))
        x = spread(net, y, x, parts)
        parts = mixed(net, x, "hc_ffn")
        for one in (x, parts.shares, parts.mix):
            net.expand(one)
        y = self.feed_forward(self.normed(parts.x, "ffn_norm"))
        return net.pinned(spread(net, y, x, parts))

    def routed(self, x: Node) -> Node:
        """See `Decoder.routed`: in the first layers a table has the experts of each token."""
        net = self.net
        table = net.weight("ffn_gate_tid2eid.weight")
        chosen = net.get_rows(table, net.tokens) if table is not None else None
        normalised = net.meta.boolean("expert_weights_norm", False)
        return experts(net, x, "sqrt_softplus", normalised, selected=chosen)

    # Attention

    def attention(self, x: Node) -> Node:
        """See `Decoder.attention`."""
        net = self.net
        mixer = self.net.mixer(CompressedAttention)
        assert isinstance(mixer, CompressedAttention)
        width, count, tokens = mixer.head_dim, mixer.heads, x.ne[1]
        latent = net.layer_norm(net.mul_mat(net.needed("attn_q_a.weight"), x), "attn_q_a_norm")
        q = net.reshape(net.mul_mat(net.needed("attn_q_b.weight"), latent), width, count, tokens)
        q = net.rope(net.rms_norm(q), self.positions)
        k = net.layer_norm(net.mul_mat(net.needed("attn_kv.weight"), x), "attn_kv_norm")
        k = net.rope(net.reshape(k, width, 1, tokens), self.positions)
        main, index = net.cache.compressor, net.cache.index_compressor
        if main is not None:
            self.compress(x, main, "attn_compressor")
        if index is not None:
            self.compress(x, index, "indexer_compressor")
        chosen = self.chosen(x, latent, index) if index is not None else None
        y = self.windowed(q, k, main, chosen)
        y = net.rope_back(net.reshape(y, width, count, tokens), self.positions)
        weight = net.needed("attn_output_a.weight")
        groups = weight.ne[2]
        y = net.permute(net.reshape(y, count // groups * width, groups, tokens), 0, 2, 1, 3)
        y = net.permute(net.mul_mat(weight, y), 0, 2, 1, 3)
        y = net.cont(y, weight.ne[1] * groups, tokens)
        return net.mul_mat(net.needed("attn_output_b.weight"), y)

    def windowed(self, q: Node, k: Node, compressor: Compressor | None, chosen: Node | None) -> Node:
        """Attention to the window and to entries, if there are any."""
        net, inputs = self.net, self.inputs.windowed
        assert inputs is not None
        assert net.cache.k is not None
        q, k = rotated(net, q, inputs.k_rotation), rotated(net, k, inputs.k_rotation)
        net.expand(q)
        net.expand(k)
        net.expand(store_keys(net, net.cache.k, k, inputs.k_rows))
        keys, mask = stored_keys(net, net.cache.k, k.ne[0], 1, net.cache.cells), inputs.mask
        if compressor is not None:
            entries = self.inputs_of(compressor).mask
            keys = net.concat(keys, self.entries(compressor, k.ne[0]), 2)
            if chosen is not None:
                entries = chosen_mask(net, entries, chosen, entries.type)
            mask = net.concat(mask, entries, 0)
        y = heads(net, q, keys, keys, mask, net.needed("attn_sinks.weight"))
        return rotated(net, y, inputs.k_rotation)

    def inputs_of(self, compressor: Compressor) -> _CompressorInputs:
        """The inputs that compressors of its kind share."""
        key = compressor.ratio, compressor.indexes
        if key not in self.kinds:
            half = compressor.indexes or self.net.batch.flash_attn
            self.kinds[key] = _inputs(self.net, compressor, "F16" if half else "F32")
        return self.kinds[key]

    def entries(self, compressor: Compressor, width: int) -> Node:
        """All entries."""
        net = self.net
        keys = stored_keys(net, compressor.entries, width, 1, compressor.cells)
        return net.view(keys, keys.ne, keys.nb[1:])

    def chosen(self, x: Node, latent: Node, compressor: Compressor) -> Node:
        """The entries that each token attends to."""
        net, inputs = self.net, self.inputs_of(compressor)
        count, width = net.meta.integer("attention.indexer.head_count"), compressor.entries.ne[0]
        q = net.mul_mat(net.needed("indexer.attn_q_b.weight"), latent)
        q = net.rope(net.reshape(q, width, count, x.ne[1]), self.positions)
        q = rotated(net, q, inputs.rotation)
        weights = net.scale(net.mul_mat(net.needed("indexer.proj.weight"), x))
        keys = self.entries(compressor, width)
        streams = keys.ne[3]
        part = x.ne[1] // streams
        q = net.view(q, (width, count, part, streams), (*q.nb[1:3], q.nb[3] // streams))
        steps = (weights.nb[1], weights.nb[2] // streams, weights.nb[3] // streams)
        weights = net.view(weights, (count, part, 1, streams), steps)
        scores = net.lightning_indexer(q, keys, weights, inputs.mask)
        most = min(scores.ne[0], net.meta.integer("attention.indexer.top_k"))
        return net.cont(net.top_k(scores, most))

    # Compression

    def compress(self, x: Node, compressor: Compressor, stem: str) -> None:
        """Make entries of tokens that complete one, and keep the rest."""
        net, inputs = self.net, self.inputs_of(compressor)
        kv = net.mul_mat(net.needed(f"{stem}_kv.weight"), x)
        score = net.mul_mat(net.needed(f"{stem}_gate.weight"), x)
        score = net.add(score, net.get_rows(net.needed(f"{stem}_ape.weight"), inputs.positions))
        states = self.restored(compressor, inputs)
        rows = compressor.rows * net.batch.cached
        sources = [
            net.concat(net.view(state, (state.ne[0], rows), state.nb[1:2]), new, 1)
            for state, new in zip(states, (kv, score), strict=True)
        ]
        made = self.overlapping if compressor.overlaps else self.separate
        y = net.layer_norm(made(sources[0], sources[1], compressor, inputs), f"{stem}_norm")
        y = rotated(net, net.rope(y, inputs.entry_positions), inputs.rotation)
        net.expand(store_keys(net, compressor.entries, y, inputs.written))
        self.saved(states, (kv, score), compressor, inputs)
        kept = [net.get_rows(new, inputs.kept_from) for new in (kv, score)]
        written = [
            net.set_rows(self.state(state), new, inputs.kept_at)
            for state, new in zip((compressor.sums, compressor.scores), kept, strict=True)
        ]
        for one in written:
            net.expand(one)

    def state(self, state: Node) -> Node:
        """All rows of a state."""
        return self.net.view(state, (state.ne[0], state.ne[1] * state.ne[2]), state.nb[1:2])

    def restored(self, compressor: Compressor, inputs: _CompressorInputs) -> list[Node]:
        """The states, after earlier ones were copied over them if any are kept."""
        net = self.net
        states = [self.state(one) for one in (compressor.sums, compressor.scores)]
        if inputs.restored_from is None or inputs.restored_at is None:
            return states
        return [
            net.set_rows(self.state(one), net.get_rows(view, inputs.restored_from), inputs.restored_at)
            for one, view in zip((compressor.sums, compressor.scores), states, strict=True)
        ]

    def saved(
        self,
        states: list[Node],
        new: tuple[Node, Node],
        compressor: Compressor,
        inputs: _CompressorInputs,
    ) -> None:
        """Keep earlier states, if any are kept."""
        net = self.net
        if inputs.saved_from is None or inputs.saved_at is None:
            return
        sources = [net.concat(state, one, 1) for state, one in zip(states, new, strict=True)]
        for source, state in zip(sources, (compressor.sums, compressor.scores), strict=True):
            net.expand(
                net.set_rows(self.state(state), net.get_rows(source, inputs.saved_from), inputs.saved_at)
            )

    def separate(self, kv: Node, score: Node, compressor: Compressor, inputs: _CompressorInputs) -> Node:
        """Entries of their own tokens."""
        net, ratio = self.net, compressor.ratio
        blocks = inputs.entry_positions.ne[0]
        parts = [net.reshape(net.get_rows(one, inputs.read), one.ne[0], ratio, blocks) for one in (kv, score)]
        return self.weighted(parts[0], parts[1])

    def overlapping(self, kv: Node, score: Node, compressor: Compressor, inputs: _CompressorInputs) -> Node:
        """Entries of their own tokens and of those of the entry before, each with half of the channels."""
        net, ratio = self.net, compressor.ratio
        blocks = inputs.entry_positions.ne[0]
        width, count = kv.ne[0] // 2, ratio * blocks
        parts = []
        for one in (kv, score):
            none = net.reshape(net.scale(net.view(one, (one.ne[0],))), one.ne[0], 1)
            rows = net.get_rows(net.concat(one, none, 1), inputs.read)
            before = net.cont(net.view(rows, (width, count), rows.nb[1:2]))
            offset = count * rows.nb[1] + width * rows.nb[0]
            own = net.cont(net.view(rows, (width, count), rows.nb[1:2], offset))
            shape = (width, ratio, blocks)
            parts.append(net.concat(net.reshape(before, *shape), net.reshape(own, *shape), 1))
        return self.weighted(parts[0], parts[1])

    def weighted(self, kv: Node, score: Node) -> Node:
        """Sums of tokens, weighted by the softmax of their scores."""
        net = self.net
        values, scores = (net.cont(net.permute(one, 1, 0, 2, 3)) for one in (kv, score))
        y = net.sum_rows(net.mul(values, net.soft_max(scores)))
        return net.cont(net.permute(y, 1, 0, 2, 3))


def build(net: Network) -> None:
    """Build the graph."""
    DeepSeek4(net, _STYLE).build()
