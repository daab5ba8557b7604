"""Mamba and Mamba-2 in a graph (`mamba-base.cpp`)."""

from __future__ import annotations

from collections.abc import Callable

from willfit.engines.llama_cpp.graph.network import Network
from willfit.engines.llama_cpp.graph.recurrent import (
    StateInputs,
    by_sequence,
    kept,
    tokens_of_each,
)
from willfit.engines.llama_cpp.graph.tensor import Node

#: Makes outputs and new states of all states and the rows that are gone on from.
Scan = Callable[[Node, Node], Node]


def mamba(net: Network, inputs: StateInputs, x: Node) -> Node:
    """A Mamba layer with its projections: width x tokens."""
    inner, size = net.meta.integer("ssm.inner_size"), net.meta.integer("ssm.state_size")
    rank = net.meta.integer("ssm.time_step_rank")
    tokens, sequences = tokens_of_each(net), net.batch.sequences
    before = earlier_inputs(net, inputs, inner)
    both = net.linear(net.needed("ssm_in.weight"), by_sequence(net, x), net.weight("ssm_in.scale"))
    shape = (inner, *both.ne[1:3])
    y = net.view(both, shape, both.nb[1:3])
    gate = net.view(both, shape, both.nb[1:3], inner * both.nb[0])
    y = net.unary("silu", net.add(convolved(net, before, y), net.needed("ssm_conv1d.bias")))
    mixed = net.linear(net.needed("ssm_x.weight"), y)
    step = net.view(mixed, (rank, tokens, sequences), mixed.nb[1:3])
    wide = (size, 1, tokens, sequences)
    steps = (size * mixed.nb[0], *mixed.nb[1:3])
    b = net.view(mixed, wide, steps, rank * mixed.nb[0])
    c = net.view(mixed, wide, steps, (rank + size) * mixed.nb[0])
    if net.weight("ssm_dt_norm.weight") is not None or net.meta.boolean("ssm.dt_b_c_rms", False):
        step, b, c = (
            net.layer_norm(one, f"ssm_{name}_norm") for one, name in ((step, "dt"), (b, "b"), (c, "c"))
        )
    else:
        step = net.cont(step)
    step = net.add(net.linear(net.needed("ssm_dt.weight"), step), net.needed("ssm_dt.bias"))
    given = net.reshape(y, 1, inner, tokens, sequences)

    def scan(states: Node, rows: Node) -> Node:
        states = net.reshape(states, size, 1, inner, states.ne[1])
        return net.ssm_scan(states, given, step, net.needed("ssm_a"), b, c, rows)

    scanned = scanned_states(net, inputs, scan, given)
    out = net.view(scanned, (inner, tokens, sequences), given.nb[2:])
    out = net.add(out, net.mul(y, net.needed("ssm_d")))
    out = gated(net, net.cont(gate), out)
    out = net.linear(net.needed("ssm_out.weight"), out, net.weight("ssm_out.scale"))
    return net.reshape(out, out.ne[0], tokens * sequences)


def mamba2(net: Network, inputs: StateInputs, x: Node) -> Node:
    """A Mamba-2 layer with its projections: width x tokens."""
    inner, size = net.meta.integer("ssm.inner_size"), net.meta.integer("ssm.state_size")
    count, groups = net.meta.integer("ssm.time_step_rank"), net.meta.integer("ssm.group_count")
    tokens, sequences = tokens_of_each(net), net.batch.sequences
    width, channels = inner // count, inner + 2 * groups * size
    before = earlier_inputs(net, inputs, channels)
    flat = net.era.projects_flat
    y = net.linear(
        net.needed("ssm_in.weight"), x if flat else by_sequence(net, x), net.weight("ssm_in.scale")
    )
    y = by_sequence(net, y) if flat else y
    heads, each = (width, count, tokens, sequences), y.nb[0]
    gate = net.view(y, heads, (width * each, *y.nb[1:3]))
    step = net.view(y, (count, tokens, sequences), y.nb[1:3], (inner + channels) * each)
    y = convolved(net, before, net.view(y, (channels, tokens, sequences), y.nb[1:3], inner * each))
    bias = net.bias("ssm_conv1d")
    y = net.unary("silu", y if bias is None else net.add(y, bias))
    given = net.view(y, heads, (width * each, *y.nb[1:3]))
    wide, steps = (size, groups, tokens, sequences), (size * each, *y.nb[1:3])
    b = net.view(y, wide, steps, inner * each)
    c = net.view(y, wide, steps, (inner + groups * size) * each)
    step = net.add(net.cont(step), net.needed("ssm_dt.bias"))

    def scan(states: Node, rows: Node) -> Node:
        states = net.reshape(states, size, width, count, states.ne[1])
        return net.ssm_scan(states, given, step, net.needed("ssm_a"), b, c, rows, net.snapshots)

    scanned = scanned_states(net, inputs, scan, given)
    out = net.view(scanned, heads, _packed(given))
    out = net.add(out, net.mul(given, net.needed("ssm_d")))
    out = gated(net, net.cont(gate), out)
    if net.weight("ssm_norm.weight") is not None:
        out = net.layer_norm(net.reshape(out, inner // groups, groups, tokens, sequences), "ssm_norm")
    out = net.reshape(out, inner, tokens * sequences) if flat else net.reshape(out, inner, tokens, sequences)
    out = net.linear(net.needed("ssm_out.weight"), out, net.weight("ssm_out.scale"))
    return out if flat else net.reshape(out, out.ne[0], tokens * sequences)


def plamo2(net: Network, inputs: StateInputs, x: Node) -> Node:
    """PLaMo-2's Mamba layer with its projections: width x tokens."""
    inner, size = net.meta.integer("ssm.inner_size"), net.meta.integer("ssm.state_size")
    count = net.meta.integer("ssm.time_step_rank")
    tokens, sequences = tokens_of_each(net), net.batch.sequences
    width = inner // count
    heads = (width, count, tokens, sequences)
    before = earlier_inputs(net, inputs, inner)
    both = net.linear(net.needed("ssm_in.weight"), by_sequence(net, x))
    both = net.cont(net.permute(both, 0, 2, 1, 3), 2 * width, *heads[1:])
    y = net.cont(net.view(both, heads, both.nb[1:], width * both.nb[0]), inner, tokens, sequences)
    gate = net.view(both, heads, both.nb[1:])
    y = net.unary("silu", convolved(net, before, y))
    mixed = net.linear(net.needed("ssm_x.weight"), y)
    rank = mixed.ne[0] - 2 * size
    widths, parts, first = (size, size, rank), [], 0
    for wide, name in zip(widths, ("b", "c", "dt"), strict=True):
        part = net.view(mixed, (wide, tokens, sequences), mixed.nb[1:3], first * mixed.nb[0])
        parts.append(net.normed(part, net.needed(f"ssm_{name}_norm")))
        first += wide
    b, c, step = parts
    step = net.add(net.linear(net.needed("ssm_dt.weight"), step), net.needed("ssm_dt.bias"))
    decay = net.reshape(net.needed("ssm_a"), 1, count)
    given = net.view(y, heads, _packed(Node("none", "F32", heads)))
    b, c = (net.view(one, (size, 1, tokens, sequences), (size * one.nb[0], *one.nb[1:3])) for one in (b, c))

    def scan(states: Node, rows: Node) -> Node:
        states = net.reshape(states, size, width, count, states.ne[1])
        return net.ssm_scan(states, given, step, decay, b, c, rows)

    scanned = scanned_states(net, inputs, scan, given)
    out = net.view(scanned, heads, _packed(given))
    out = net.add(out, net.mul(given, net.reshape(net.needed("ssm_d"), 1, count)))
    out = gated(net, net.cont(gate), out)
    out = net.view(out, (inner, tokens, sequences), out.nb[2:])
    out = net.linear(net.needed("ssm_out.weight"), out)
    return net.reshape(out, out.ne[0], tokens * sequences)


def earlier_inputs(net: Network, inputs: StateInputs, channels: int) -> Node:
    """What the short convolution kept: steps x channels x sequences."""
    cache = net.cache.r
    assert cache is not None
    before = kept(net, inputs, cache)
    return net.reshape(before, cache.ne[0] // channels, channels, net.batch.sequences)


def convolved(net: Network, before: Node, x: Node) -> Node:
    """The short convolution of `x`, the last of which are kept."""
    cache = net.cache.r
    assert cache is not None
    given = net.concat(before, net.transpose(x), 0)
    tokens, sequences = x.ne[1:3]
    shape = (before.ne[0], *given.ne[1:3])
    for slot in range(min(tokens, net.snapshots)):
        last = net.view(given, shape, given.nb[1:3], (tokens - slot) * given.nb[0])
        place = slot * net.batch.cached * cache.nb[1]
        net.expand(net.cpy(last, net.view(cache, (cache.ne[0], sequences), cache.nb[1:2], place)))
    return net.ssm_conv(given, net.needed("ssm_conv1d.weight"))


def scanned_states(net: Network, inputs: StateInputs, scan: Scan, x: Node) -> Node:
    """Outputs of a scan of `x` with the new states behind them, which are kept."""
    cache = net.cache.s
    assert cache is not None
    scanned = kept(net, inputs, cache, scan)
    width, sequences = cache.ne[0], net.batch.sequences
    written = min(tokens_of_each(net), net.snapshots)
    row = width * scanned.nb[0]
    new = net.view(scanned, (width, sequences, written), (row, row * sequences), x.elements * x.nb[0])
    place = net.view(cache, (width, sequences, written), (cache.nb[1], cache.nb[1] * net.batch.cached))
    net.expand(net.cpy(new, place))
    return scanned


def gated(net: Network, gate: Node, x: Node) -> Node:
    """`x` with a gate of the same shape."""
    if net.era.gates_at_once:
        return net.glu("swiglu", gate, x)
    return net.mul(x, net.unary("silu", gate))


def _packed(x: Node) -> tuple[int, int, int]:
    """Strides of a tensor of heads without gaps, whatever its own are."""
    row = x.ne[0] * x.nb[0]
    return row, row * x.ne[1], row * x.ne[1] * x.ne[2]
