"""Softmax attention with its projections, by the implementation that runs it."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.mixers import Attention
from willfit.architectures.model import Tensor
from willfit.architectures.traits import Traits
from willfit.quantities import DTYPE_BYTES, round_up
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.kernels import chosen_sdpa, flash_workspace
from willfit.training.tape import Value

#: State of the random generator that kernels keep (`_scaled_dot_product_flash_attention`, `_efficient_attention`).
_PHILOX = {"efficient": 16}
_FLASH_PHILOX = 24


def attention(
    builder: Builder, value: Value, tensors: Sequence[Tensor], mixer: Attention, traits: Traits
) -> Value:
    """Project, rotate, attend, and project back.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The normed input.
    tensors
        The attention's tensors.
    mixer, traits
        Its shape, and what belongs to the family: norms of heads, soft caps, dropout.
    """
    matrices = [tensor for tensor in tensors if tensor.kind == "linear"]
    biases = {_module(tensor): tensor for tensor in tensors if tensor.kind == "bias"}
    norms = [tensor for tensor in tensors if tensor.kind == "norm"]
    outward = next((t for t in reversed(matrices) if t.split is not None and t.split.axis == 1), matrices[-1])
    inward = [tensor for tensor in matrices if tensor is not outward]
    queries, keys, values = _projected(builder, value, inward, biases, mixer)
    norm = "rms" if traits.norm == "layer_norm" else traits.norm
    for tensor in norms:
        if "k_" in tensor.name or "key" in tensor.name:
            keys = builder.norm(keys, tensor, norm, rows=_norm_rows(builder, keys, tensor))
        else:
            queries = builder.norm(queries, tensor, norm, rows=_norm_rows(builder, queries, tensor))
    if traits.rotary:
        queries, keys = _rotated(builder, queries), _rotated(builder, keys)
    mixed = attend(builder, queries, keys, values, mixer, traits)
    return builder.linear(mixed, outward, biases.get(_module(outward)))


def _projected(
    builder: Builder, value: Value, inward: Sequence[Tensor], biases: dict[str, Tensor], mixer: Attention
) -> tuple[Value, Value, Value]:
    heads, kv_heads = rank_heads(builder, mixer)
    tokens = builder.step.tokens
    sizes = (
        tokens * heads * mixer.head_dim,
        tokens * kv_heads * mixer.head_dim,
        tokens * kv_heads * mixer.value_dim,
    )
    if len(inward) == 1:
        fused = builder.linear(value, inward[0], biases.get(_module(inward[0])))
        queries, keys, values = builder.tape.split(fused, sizes)
        return queries, keys, values
    found = [builder.linear(value, tensor, biases.get(_module(tensor))) for tensor in inward]
    if len(found) == 2:
        # Keys and values in one matrix, or values made from the keys' projection.
        keys, values = (found[1], found[1]) if mixer.value_is_key else builder.tape.split(found[1], sizes[1:])
        return found[0], keys, values
    return found[0], found[1], found[2]


def rank_heads(builder: Builder, mixer: Attention) -> tuple[int, int]:
    """Query heads and key/value heads of one tensor-parallel rank."""
    ranks = builder.step.tensor_ranks
    return max(1, mixer.heads // ranks), max(1, mixer.kv_heads // ranks)


def _norm_rows(builder: Builder, value: Value, tensor: Tensor) -> int:
    return value.elements // (builder.stored(tensor).weight.elements or 1)


def _rotated(builder: Builder, value: Value) -> Value:
    """x cos + rotate_half(x) sin: two products and a half turned around (transformers `apply_rotary_pos_emb`).

    Under autocast the angles are float32, and so is the result.
    """
    if "rope" in builder.step.kernels:
        return builder.tape.run("rope", (value,), value.elements, value.dtype, reuses=True)
    dtype = "fp32" if builder.step.autocast and builder.step.wide_angles else value.dtype
    size = value.elements * DTYPE_BYTES[dtype]
    return builder.tape.run(
        "rope", (value,), value.elements, dtype, forward_temp=2 * size, backward_temp=2 * size
    )


def attend(
    builder: Builder, queries: Value, keys: Value, values: Value, mixer: Attention, traits: Traits
) -> Value:
    """Attention proper: from queries, keys and values to the input of the output projection."""
    step, tape = builder.step, builder.tape
    if step.autocast:
        queries, keys, values = (tape.cast(one, step.compute) for one in (queries, keys, values))
    kind = step.attention
    if kind == "sdpa":
        kind = chosen_sdpa(step, mixer, queries.dtype)
    if traits.attention_softcap and kind not in ("flex_attention",) and not step.flash:
        kind = "eager"
    if kind == "eager":
        return _eager(builder, queries, keys, values, mixer, traits)
    if kind == "math":
        return _math(builder, queries, keys, values, mixer)
    return _fused(builder, queries, keys, values, mixer, kind)


def _fused(
    builder: Builder, queries: Value, keys: Value, values: Value, mixer: Attention, kind: str
) -> Value:
    """A kernel that never holds scores: it keeps queries, keys, values, output and log-sum-exp."""
    step, tape = builder.step, builder.tape
    heads, kv_heads = rank_heads(builder, mixer)
    if heads != kv_heads and (kind == "efficient" or (step.repeats_keys and not step.flash)):
        keys = _repeated(builder, keys, heads // kv_heads)
        values = _repeated(builder, values, heads // kv_heads)
    rows = step.length if kind != "efficient" else round_up(step.length, 32)
    statistics = 4 * step.batch * heads * rows
    mask = step.batch * step.length * step.keys * step.width if kind == "efficient" and step.masked else 0
    out = step.tokens * heads * mixer.value_dim
    return tape.run(
        kind,
        (queries, keys, values),
        out,
        values.dtype,
        saves=(queries, keys, values),
        saves_output=True,
        kept_bytes=statistics + mask + _PHILOX.get(kind, _FLASH_PHILOX),
        backward_temp=flash_workspace(step, heads, kv_heads, mixer, kind),
    )


def _repeated(builder: Builder, value: Value, times: int) -> Value:
    return builder.tape.run("repeat", (value,), value.elements * times, value.dtype)


def _eager(
    builder: Builder, queries: Value, keys: Value, values: Value, mixer: Attention, traits: Traits
) -> Value:
    """Scores, softmax in float32, dropout, and a product with the values (`eager_attention_forward`)."""
    step, tape = builder.step, builder.tape
    heads, kv_heads = rank_heads(builder, mixer)
    times = heads // kv_heads
    queries = tape.copy(queries)
    keys, values = _repeated(builder, keys, times), _repeated(builder, values, times)
    size = step.batch * heads * step.length * step.keys
    scores = tape.run("scores", (queries, keys), size, queries.dtype, saves=(queries, keys))
    scores = tape.scale(scores)
    if traits.attention_softcap:
        bent = tape.run("tanh", (tape.scale(scores),), size, scores.dtype, saves_output=True)
        scores = tape.scale(bent)
    if step.masked or step.length > 1:
        scores = tape.run("add mask", (scores,), size, scores.dtype, passes=True)
    shares = tape.cast(tape.run("softmax", (scores,), size, "fp32", saves_output=True), values.dtype)
    shares = tape.dropout(shares, traits.attention_dropout if step.training else 0.0)
    out = step.tokens * heads * mixer.value_dim
    mixed = tape.run("mix", (shares, values), out, values.dtype, saves=(shares, values))
    return tape.copy(mixed)


def _math(builder: Builder, queries: Value, keys: Value, values: Value, mixer: Attention) -> Value:
    """SDPA written out (`_scaled_dot_product_attention_math`): scaled queries and keys, softmax, values."""
    step, tape = builder.step, builder.tape
    heads, kv_heads = rank_heads(builder, mixer)
    if heads != kv_heads:
        keys = _repeated(builder, keys, heads // kv_heads)
        values = _repeated(builder, values, heads // kv_heads)
    queries, keys = tape.scale(queries), tape.scale(keys)
    size = step.batch * heads * step.length * step.keys
    scores = tape.run("scores", (queries, keys), size, queries.dtype, saves=(queries, keys))
    scores = tape.run("add mask", (scores,), size, scores.dtype, passes=True)
    shares = tape.run("softmax", (scores,), size, scores.dtype, saves_output=True)
    out = step.tokens * heads * mixer.value_dim
    mixed = tape.run("mix", (shares, values), out, values.dtype, saves=(shares, values))
    return tape.copy(mixed)


def _module(tensor: Tensor) -> str:
    return tensor.name.rpartition(".")[0]
