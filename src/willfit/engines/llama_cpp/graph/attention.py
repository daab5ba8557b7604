"""Attention over a cache, as the graph computes it (`llama-graph.cpp: build_attn`, `llama-kv-cache.cpp`)."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.engines.llama_cpp.graph.network import LayerCache, Network
from willfit.engines.llama_cpp.graph.tensor import Node, row_bytes
from willfit.quantities import MIB

#: Least order of the Hadamard matrix that an indexer's keys are multiplied by.
ROTATION = 64
#: Architectures whose scores fall with distance, whatever their files say.
_ALIBI = frozenset(("bloom", "refact", "jina-bert-v2"))
#: Layers of the Baichuan model that has no rotary positions.
_BAICHUAN_13B = 40


@dataclass(slots=True)
class CacheInputs:
    """What attention to one kind of cache is given.

    Attributes
    ----------
    mask
        Which cells each token sees.
    k_rows, v_rows
        Where new keys and values go; None without a cache, and in builds that copy them to a view of it.
    k_rotation, v_rotation
        Hadamard matrices; None where nothing is rotated.
    """

    mask: Node
    k_rows: Node | None = None
    v_rows: Node | None = None
    k_rotation: Node | None = None
    v_rotation: Node | None = None


@dataclass(slots=True)
class AttentionInputs:
    """Inputs for layers that see everything, and for those with a window.

    Attributes
    ----------
    full, windowed
        None where the model has no such layers.
    """

    full: CacheInputs | None
    windowed: CacheInputs | None

    def of(self, net: Network) -> CacheInputs:
        """Those of the current layer."""
        found = self.windowed if net.slides and self.windowed is not None else self.full
        assert found is not None
        return found


def cache_inputs(net: Network) -> AttentionInputs:
    """The inputs of all caches."""
    full: LayerCache | None = None
    windowed: LayerCache | None = None
    for cache in net.caches:
        if cache.k is not None:
            if cache.windowed and windowed is None:
                windowed = cache
            elif not cache.windowed and full is None:
                full = cache
    made_full = _inputs(net, full) if full is not None else None
    return AttentionInputs(made_full, _inputs(net, windowed) if windowed is not None else None)


def _inputs(net: Network, cache: LayerCache) -> CacheInputs:
    batch = net.batch
    streams = 1 if batch.kv_unified else batch.sequences
    k_rows = v_rows = None
    if net.era.sets_rows:
        k_rows = net.input("I64", batch.tokens, name="k rows")
        if cache.v is not None:
            each = _widest_values(net) if batch.transposed else 1
            v_rows = net.input("I64", batch.tokens * each, name="v rows")
    mask = _mask(net, cache.cells, batch.tokens // streams, streams)
    k_rotation = net.input("F32", cache.rotates_k, cache.rotates_k) if cache.rotates_k else None
    v_rotation = net.input("F32", cache.rotates_v, cache.rotates_v) if cache.rotates_v else None
    return CacheInputs(mask, k_rows, v_rows, k_rotation, v_rotation)


@dataclass(frozen=True, slots=True)
class IndexInputs:
    """What indexers are given: where new keys go, which cells each token sees, a Hadamard matrix."""

    rows: Node
    mask: Node
    rotation: Node


def index_inputs(net: Network, width: int) -> IndexInputs:
    """The inputs of all indexers, whose keys are so wide (`build_attn_inp_k_dsa`)."""
    batch = net.batch
    streams = 1 if batch.kv_unified else batch.sequences
    cells = next(cache.cells for cache in net.caches if cache.index is not None)
    order = ROTATION
    while width % (2 * order) == 0:
        order *= 2
    return IndexInputs(
        net.input("I64", batch.tokens, name="index rows"),
        net.input("F16", cells, batch.tokens // streams, 1, streams, name="index mask"),
        net.input("F32", order, order, name="index rotation"),
    )


def indexed_keys(net: Network, k: Node, rows: Node) -> Node:
    """Store new keys of an indexer; all that are stored."""
    cache = net.cache.index
    assert cache is not None
    net.expand(store_keys(net, cache, k, rows))
    return stored_keys(net, cache, cache.ne[0], 1, net.cache.cells)


def chosen_mask(net: Network, mask: Node, chosen: Node, type: str = "F32") -> Node:
    """A mask that leaves only the chosen cells (`build_attn`).

    Parameters
    ----------
    type
        Of the zeros that are written to a mask that hides everything.
    """
    hidden = net.fill(mask)
    hidden = net.view(hidden, (1, mask.ne[0], mask.ne[1], mask.ne[3]), mask.nb[:3])
    cells = net.view(chosen, (*chosen.ne[:2], chosen.ne[3]), (*chosen.nb[1:3], chosen.ne[3] * chosen.nb[3]))
    shown = net.fill(net.new(type, 1, *cells.ne[:3]))
    y = net.set_rows(hidden, shown, cells)
    y = net.view(y, (y.ne[1], y.ne[2], 1, y.ne[3]), (y.nb[2], y.nb[3], y.nb[3]))
    return net.add(y, mask)


def _mask(net: Network, seen: int, rows: int, streams: int = 1) -> Node:
    """Which of the tokens that could be seen each row sees."""
    flat = net.batch.flash_attn
    step = net.era.mask_padding
    rows = -(-rows // step) * step
    half = flat and net.era.half_masks
    mask = net.input("F16" if half else "F32", seen, rows, 1, streams, name="mask")
    return net.cast(mask, "F16") if flat and not half else mask


def batch_inputs(net: Network) -> AttentionInputs:
    """The inputs of attention among the tokens of the batch (`build_attn_inp_no_cache`)."""
    tokens = net.batch.tokens
    full = CacheInputs(_mask(net, tokens, tokens))
    return AttentionInputs(full, CacheInputs(_mask(net, tokens, tokens)) if net.has_windows else None)


def cross_inputs(net: Network, seen: int) -> CacheInputs:
    """The inputs of attention to so many tokens of an encoder (`build_attn_inp_cross`)."""
    return CacheInputs(_mask(net, seen, net.batch.tokens))


def _widest_values(net: Network) -> int:
    """Width of the widest layer's values: without flash attention all have it."""
    return max(
        mixer.kv_heads * mixer.value_dim if isinstance(mixer, Attention) else mixer.kv_rank
        for layer in net.layers
        for mixer in layer.mixers
        if isinstance(mixer, Attention | LatentAttention)
    )


def rotated(net: Network, x: Node, matrix: Node | None) -> Node:
    """Heads times a Hadamard matrix."""
    if matrix is None:
        return x
    width = matrix.ne[0]
    rows = (width, x.elements // width)
    y = net.mul_mat(matrix, net.reshape(x, *rows) if x.is_contiguous else net.cont(x, *rows))
    return net.reshape(y, *x.ne)


def attend(
    net: Network,
    inputs: CacheInputs,
    q: Node,
    k: Node | None,
    v: Node | None,
    sinks: Node | None = None,
    project: str = "attn_output",
    bias: Node | None = None,
    mask: Node | None = None,
) -> Node:
    """Store new keys and values, attend to the whole cache, project the outputs (`build_attn`).

    Parameters
    ----------
    q, k, v
        Width x heads x tokens. Without keys and values the layer reads an earlier one's cache.
    project
        Name of the output projection; empty for none.
    bias
        Added to the scores: relative positions.
    mask
        Instead of that of the inputs.
    """
    q = rotated(net, q, inputs.k_rotation)
    k = rotated(net, k, inputs.k_rotation) if k is not None else None
    v = rotated(net, v, inputs.v_rotation) if v is not None else None
    if not net.era.stores_first:
        for one in (q, k, v) if net.has_windows or net.era.keys_early else (q, v, k):
            net.expand(one)
    stored(net, inputs, k, v)
    cache, mixer = net.cache, net.attention()
    assert isinstance(mixer, Attention)
    keys = cached_keys(net, cache, mixer.head_dim, mixer.kv_heads)
    values = cached_values(net, cache, mixer.value_dim, mixer.kv_heads)
    x = heads(net, q, keys, values, mask if mask is not None else inputs.mask, sinks, bias=bias)
    x = rotated(net, x, inputs.v_rotation)
    return net.projected(project, x) if project else x


def stored(net: Network, inputs: CacheInputs, k: Node | None, v: Node | None) -> None:
    """Write new keys and values to the current layer's cache."""
    cache = net.cache
    assert cache.k is not None
    assert cache.v is not None
    if k is not None:
        net.expand(store_keys(net, cache.k, k, inputs.k_rows))
    if v is not None:
        net.expand(_store_values(net, cache, v, inputs.v_rows))


def attend_batch(
    net: Network,
    inputs: CacheInputs,
    q: Node,
    k: Node,
    v: Node,
    sinks: Node | None = None,
    project: str = "attn_output",
    bias: Node | None = None,
) -> Node:
    """Attend to what is given, without a cache; see `attend`."""
    if net.era.encodes_late:
        x = _late_heads(net, q, k, v, inputs.mask)
    else:
        for one in (q, k, v):
            net.expand(one)
        x = heads(net, q, k, v, inputs.mask, sinks, bias=bias)
    return net.projected(project, x) if project else x


def _late_heads(net: Network, q: Node, k: Node, v: Node, mask: Node) -> Node:
    """All heads of an encoder's attention, in an order in which values come last."""
    width, count, tokens, _ = v.ne
    scores = net.mul_mat(net.cont(net.permute(k, 0, 2, 1, 3)), net.permute(q, 0, 2, 1, 3))
    scores = net.soft_max(scores, mask)
    v = net.cont(net.transpose(net.reshape(v, width * count, tokens)))
    x = net.permute(net.mul_mat(net.reshape(v, tokens, width, count), scores), 0, 2, 1, 3)
    x = net.cont(x, x.ne[0] * x.ne[1], x.ne[2])
    net.expand(x)
    return x


def attend_latents(
    net: Network,
    inputs: CacheInputs,
    q: Node,
    k: Node,
    v: Node,
    up: Node | None,
    mask: Node | None = None,
    project: str = "attn_output",
    sinks: Node | None = None,
) -> Node:
    """Attend to cached latents, the first part of which are the values.

    Parameters
    ----------
    q, k, v
        Width x heads x tokens; one head of keys and values.
    up
        From latents to values.
    mask
        Instead of that of the inputs.
    """
    for one in (q, v, k):
        net.expand(one)
    cache = net.cache
    assert cache.k is not None
    net.expand(store_keys(net, cache.k, k, inputs.k_rows))
    keys = cached_keys(net, cache, k.ne[0], 1)
    if cache.v is not None:
        net.expand(_store_values(net, cache, v, inputs.v_rows))
        values = cached_values(net, cache, v.ne[0], 1)
    else:
        values = net.view(keys, (v.ne[0], *keys.ne[1:]), keys.nb[1:])
    x = heads(net, q, keys, values, mask if mask is not None else inputs.mask, sinks, up=up)
    return net.projected(project, x) if project else x


def _streams(net: Network) -> int:
    return 1 if net.batch.kv_unified else net.batch.cached


def store_keys(net: Network, cache: Node, k: Node, rows: Node | None) -> Node:
    """Write new keys to their rows; the caller expands it."""
    width = k.ne[0] * k.ne[1]
    if rows is None:
        return net.cpy(k, net.view(cache, (k.elements,)))
    k = net.view(k, (width, k.ne[2]), (k.nb[2],))
    if cache.ne[2] > 1:
        cache = net.reshape(cache, width, cache.ne[1] * cache.ne[2])
    return net.set_rows(cache, k, rows)


def _store_values(net: Network, kept: LayerCache, v: Node, rows: Node | None) -> Node:
    cache = kept.v
    assert cache is not None
    width, tokens = v.ne[0] * v.ne[1], v.ne[2]
    if rows is None:
        v = net.reshape(v, width, tokens)
        if not net.batch.transposed:
            return net.cpy(v, net.view(cache, (v.elements,)))
        v = net.transpose(v)
        return net.cpy(v, net.view(cache, (tokens, width), (row_bytes(cache.type, cache.ne[1]),)))
    if not net.batch.transposed:
        v = net.view(v, (width, tokens), (v.nb[2],))
        if cache.ne[2] > 1:
            cache = net.reshape(cache, width, cache.ne[1] * cache.ne[2])
        return net.set_rows(cache, v, rows)
    merged = row_bytes(v.type, width) == v.nb[2]
    v = net.reshape(v, width, tokens) if merged else net.cont(v, width, tokens)
    if width < cache.ne[0]:
        v = net.pad(v, cache.ne[0] - width)
    # Each element of transposed values is a row.
    whole = net.reshape(cache, 1, cache.elements)
    return net.set_rows(whole, net.reshape(v, 1, v.elements), rows)


def cached_keys(net: Network, cache: LayerCache, width: int, count: int) -> Node:
    """The keys of all cells."""
    assert cache.k is not None
    return stored_keys(net, cache.k, width, count, cache.cells)


def stored_keys(net: Network, k: Node, width: int, count: int, cells: int) -> Node:
    """So many cells of a tensor that holds keys: width x heads x cells x streams."""
    steps = (row_bytes(k.type, width), row_bytes(k.type, k.ne[0]), row_bytes(k.type, k.ne[0] * k.ne[1]))
    return net.view(k, (width, count, cells, _streams(net)), steps)


def cached_values(net: Network, cache: LayerCache, width: int, count: int) -> Node:
    """The values of all cells."""
    v = cache.v
    assert v is not None
    cells = v.ne[1]
    if not net.batch.transposed:
        steps = (row_bytes(v.type, width), row_bytes(v.type, v.ne[0]), row_bytes(v.type, v.ne[0] * cells))
        return net.view(v, (width, count, cache.cells, _streams(net)), steps)
    steps = (row_bytes(v.type, cells * width), row_bytes(v.type, cells), row_bytes(v.type, cells * v.ne[0]))
    return net.view(v, (cache.cells, count, width, _streams(net)), steps)


def heads(
    net: Network,
    q: Node,
    k: Node,
    v: Node,
    mask: Node | None,
    sinks: Node | None = None,
    up: Node | None = None,
    bias: Node | None = None,
) -> Node:
    """All heads of attention, side by side (`build_attn_mha`).

    Parameters
    ----------
    up
        Latent attention's projection from latents to values.
    bias
        Added to the scores: relative positions.
    """
    transposed = v.nb[1] > v.nb[2]
    streams = k.ne[3]
    part = q.ne[2] // streams
    q = net.view(q, (q.ne[0], q.ne[1], part, streams), (q.nb[1], q.nb[2], q.nb[2] * part))
    q, k, v = (net.permute(x, 0, 2, 1, 3) for x in (q, k, v))
    if net.batch.flash_attn and bias is None:
        if transposed:
            v = net.transpose(v)
        k = net.cast(k, "F16") if k.type == "F32" else k
        v = net.cast(v, "F16") if v.type == "F32" else v
        kind = "alibi" if has_alibi(net) else "capped" if softcaps(net) else ""
        x = net.flash_attn(q, k, v, mask, sinks, kind=kind)
        if up is not None:
            x = net.mul_mat(up, net.permute(x, 0, 2, 1, 3))
            x = net.cont(net.permute(x, 0, 2, 1, 3))
        x = net.reshape(x, x.ne[0] * x.ne[1], x.ne[2] * x.ne[3])
    elif _in_parts(net, q, k):
        x = _head_after_head(net, q, k, v, mask)
        x = net.permute(x, 0, 2, 1, 3)
        x = net.cont(x, x.ne[0] * x.ne[1], x.ne[2] * x.ne[3])
    else:
        scores = net.mul_mat(k, q)
        if softcaps(net):
            scores = net.scale(net.unary("tanh", net.scale(scores)))
        if bias is not None:
            scores = net.add(scores, bias)
        scores = _probabilities(net, scores, mask, sinks)
        if not transposed:
            v = net.cont(net.transpose(v))
        x = net.mul_mat(v, scores)
        if up is not None:
            x = net.mul_mat(up, x)
        x = net.permute(x, 0, 2, 1, 3)
        x = net.cont(x, x.ne[0] * x.ne[1], x.ne[2] * x.ne[3])
        if net.batch.kv_on_host and net.batch.pins:
            x.backend = net.host
    net.expand(x)
    return x


def _in_parts(net: Network, q: Node, k: Node) -> bool:
    """Whether scores of all heads are beyond ik_llama.cpp's `-amb`, which holds where no heads share keys."""
    limit = net.batch.attention_mib
    return 0 < limit < 4 * k.ne[1] * q.ne[1] * q.ne[2] // MIB and k.ne[2] == q.ne[2]


def _head_after_head(net: Network, q: Node, k: Node, v: Node, mask: Node | None) -> Node:
    """What each head attends to, joined."""
    y: Node | None = None
    for index in range(q.ne[2]):
        one, keys, values = (net.view(x, (*x.ne[:2], 1), x.nb[1:3], index * x.nb[2]) for x in (q, k, v))
        part = net.mul_mat(values, net.soft_max(net.mul_mat(keys, one), mask))
        y = part if y is None else net.concat(y, part, 2)
    assert y is not None
    return y


def _probabilities(net: Network, scores: Node, mask: Node | None, sinks: Node | None) -> Node:
    """Softmax of masked scores."""
    if net.era.masks == "softmax":
        return net.soft_max(scores, mask, sinks if sinks is not None else _distances(net))
    scores = net.scale(scores)
    if net.era.masks == "triangle":
        return net.soft_max(net.triangle(scores))
    return net.soft_max(net.add(scores, mask) if mask is not None else scores)


def _distances(net: Network) -> Node | None:
    """The input by which scores fall with distance, in builds that have one; Baichuan's graphs have it always."""
    architecture = net.meta.architecture
    if not net.era.gives_distances or not (architecture == "baichuan" or has_alibi(net)):
        return None
    if net.distances is None:
        net.distances = net.input("F32", net.cache.cells, name="distances")
    return net.distances


def softcaps(net: Network) -> bool:
    """Whether attention scores are softly capped."""
    return net.meta.architecture in ("gemma2", "grok")


def has_alibi(net: Network) -> bool:
    """Whether scores fall with distance, which not all kernels can."""
    meta = net.meta
    if meta.architecture == "baichuan":
        return len(net.layers) == _BAICHUAN_13B
    stated = f"{meta.architecture}.attention.max_alibi_bias"
    return meta.architecture in _ALIBI or bool(meta.values.get(stated))
