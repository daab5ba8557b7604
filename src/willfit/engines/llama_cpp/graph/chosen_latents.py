"""Latent attention in ik_llama.cpp, whose `-mla` and `-amb` choose how it is computed (`build_deepseek2`)."""

from __future__ import annotations

from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.tensor import Node, row_bytes
from willfit.quantities import MIB

#: Tokens from which keys and values of all heads are made from cached latents.
_MANY_TOKENS = 128


def attend_chosen(net: Network, mask: Node, q: Node, rotated: Node, latent: Node, shared: Node) -> Node:
    """Store new latents, attend to the whole cache, project the outputs.

    Parameters
    ----------
    mask
        Which tokens each row sees.
    q, rotated
        Queries' parts without and with positions: width x heads x tokens.
    latent, shared
        Latents of the batch, and keys with positions that all heads share: width x 1 x tokens.
    """
    cache, mla = net.cache, net.batch.mla
    assert cache.k is not None
    tokens, rank, rope = q.ne[2], latent.ne[0], shared.ne[0]
    stored = cache.v
    if stored is not None:
        whole = net.view(stored, (tokens, rank), (row_bytes(stored.type, cache.cells),))
        net.expand(net.cpy(net.transpose(latent), whole))
    both = net.concat(net.permute(shared, 0, 2, 1, 3), latent, 0)
    step = row_bytes(cache.k.type, rank + rope)
    net.expand(net.cpy(both, net.view(cache.k, (rank + rope, tokens), (step,))))
    if mla > 1 and net.batch.flash_attn and tokens >= _MANY_TOKENS:
        halves = net.era.multiplies_halves
        y = (_from_whole_heads if halves else _from_floats)(net, mask, q, rotated, rank, step)
    else:
        y = _among_latents(net, mask, q, rotated, rank, step)
    net.expand(y)
    return net.linear(net.needed("attn_output.weight"), y)


def _from_whole_heads(net: Network, mask: Node, q: Node, rotated: Node, rank: int, step: int) -> Node:
    """Attention among keys and values that are made from the whole cache, for some heads at a time."""
    cached, cells = net.cache.k, net.cache.cells
    assert cached is not None
    plain, heads, tokens = q.ne[:3]
    rope, kind = rotated.ne[0], cached.type if net.host == 0 else "F16"
    width = net.meta.integer("attention.value_length_mla", net.meta.integer("attention.value_length"))
    latents = net.view(cached, (rank, cells), (step,))
    at_once = _heads_at_once(net, heads, 4 * heads * (plain + width) * cells)
    shared = net.view(cached, (rope, cells, 1), (step, cached.nb[2]))
    if cached.type != kind:
        shared = net.cast(shared, kind)
    shared = net.repeat(shared, rope, cells, at_once, 1)
    queries = net.permute(net.concat(rotated, q, 0), 0, 2, 1, 3)
    net.expand(queries)
    matrix = net.needed("attn_kv_b.weight")
    y: Node | None = None
    for _ in range(heads // at_once):
        part = net.view(matrix, (rank, (plain + width) * at_once), matrix.nb[1:2])
        made = net.mul_mat(part, latents)
        steps = (row_bytes("F32", at_once * (plain + width)), row_bytes("F32", plain + width))
        v = net.cast(net.view(made, (width, cells, at_once), steps, row_bytes("F32", plain)), kind)
        k = net.cast(net.view(made, (plain, cells, at_once), steps), kind)
        net.expand(k)
        net.expand(v)
        k = net.concat(shared, k, 0)
        net.expand(k)
        some = net.view(queries, (queries.ne[0], queries.ne[1], at_once), queries.nb[1:3])
        result = net.reshape(net.flash_attn(some, k, v, mask), width * at_once, tokens)
        y = result if y is None else net.concat(y, result, 0)
    assert y is not None
    return y


def _from_floats(net: Network, mask: Node, q: Node, rotated: Node, rank: int, step: int) -> Node:
    """The same in builds that could multiply with floats only: for all heads at once, the cache in F32."""
    cached, cells = net.cache.k, net.cache.cells
    assert cached is not None
    plain, heads, tokens = q.ne[:3]
    rope = rotated.ne[0]
    width = net.meta.integer("attention.value_length_mla", net.meta.integer("attention.value_length"))
    floats = net.cast(net.view(cached, (rank + rope, cells), (step,)), "F32")
    latents = net.view(floats, (rank, cells), floats.nb[1:2])
    shared = net.view(floats, (rope, 1, cells), (floats.nb[1], floats.nb[1]))
    made = net.mul_mat(net.needed("attn_kv_b.weight"), latents)
    steps = (row_bytes("F32", heads * (plain + width)), row_bytes("F32", plain + width))
    k = net.view(made, (plain, cells, heads), steps)
    k = net.concat(k, net.permute(net.repeat(shared, rope, heads, cells, 1), 0, 2, 1, 3), 0)
    k = net.cast(k, cached.type)
    v = net.cast(net.view(made, (width, cells, heads), steps, row_bytes("F32", plain)), cached.type)
    queries = net.permute(net.concat(q, rotated, 0), 0, 2, 1, 3)
    net.expand(queries)
    return net.reshape(net.flash_attn(queries, k, v, mask), width * heads, tokens)


def _heads_at_once(net: Network, heads: int, size: int) -> int:
    """How many heads keys and values are made for at once: half as often as it takes to keep the limit."""
    limit, mib = net.batch.attention_mib, size // MIB
    while limit and mib > limit and heads % 2 == 0:
        heads, mib = heads // 2, mib // 2
    return heads


def _among_latents(net: Network, mask: Node, q: Node, rotated: Node, rank: int, step: int) -> Node:
    """Attention among the latents themselves: queries are projected to them."""
    cached, cells = net.cache.k, net.cache.cells
    assert cached is not None
    mla, tokens = net.batch.mla, q.ne[2]
    projected = net.mul_mat(net.needed("attn_k_b.weight"), net.permute(q, 0, 2, 1, 3))
    queries = net.concat(net.permute(rotated, 0, 2, 1, 3), projected, 0)
    keys = net.view(cached, (queries.ne[0], cells), (step,))
    if net.batch.flash_attn and mla in (1, 3):
        y = net.flash_attn(queries, keys, net.view(cached, (rank, cells), (step,)), mask)
        y = net.permute(y, 0, 2, 1, 3)
    else:
        if net.cache.v is None:
            values = net.cont(net.transpose(net.view(cached, (rank, cells), (step,))))
        else:
            values = net.view(net.cache.v, (cells, rank), (row_bytes(net.cache.v.type, cells),))
        y = _some_heads_after_others(net, mask, queries, keys, values)
    y = net.mul_mat(net.needed("attn_v_b.weight"), y)
    y = net.cont(net.permute(y, 0, 2, 1, 3))
    return net.view(y, (y.ne[0] * y.ne[1], tokens), (row_bytes("F32", y.ne[0] * y.ne[1]),))


def _some_heads_after_others(net: Network, mask: Node, q: Node, k: Node, v: Node) -> Node:
    """Scores of so many heads at once as the limit allows, and what they attend to."""
    heads, limit = q.ne[2], net.batch.attention_mib
    mib = 4 * k.ne[1] * q.ne[1] * heads // MIB
    if not limit or limit >= mib:
        return _attended(net, mask, q, k, v)
    steps = min(-(-mib // limit), heads)
    each = -(-heads // steps)
    y: Node | None = None
    for start in range(0, heads, each):
        some = net.view(q, (q.ne[0], q.ne[1], min(each, heads - start)), q.nb[1:3], start * q.nb[2])
        part = _attended(net, mask, some, k, v)
        y = part if y is None else net.concat(y, part, 2)
        net.expand(y)
    assert y is not None
    return y


def _attended(net: Network, mask: Node, q: Node, k: Node, v: Node) -> Node:
    few = q.ne[1] < _MANY_TOKENS
    scores = net.mul_mat(k, net.permute(q, 0, 2, 1, 3) if few else q)
    if few:
        scores = net.cont(net.permute(scores, 0, 2, 1, 3))
    scores = net.soft_max(scores, mask)
    y = net.mul_mat(v, net.permute(scores, 0, 2, 1, 3) if few else scores)
    return net.permute(y, 0, 2, 1, 3) if few else y
