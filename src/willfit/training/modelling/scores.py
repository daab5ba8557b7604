"""Attention proper, by the implementation that runs it: eager, SDPA's three backends, or a flash kernel."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.mixers import Attention
from willfit.architectures.traits import Traits
from willfit.quantities import DTYPE_BYTES, round_up
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.disentangled import disentangled_scores
from willfit.training.modelling.kernels import chosen_sdpa, flash_workspace
from willfit.training.modelling.step import Step
from willfit.training.tape import Value

#: State of the random generator that kernels keep (`_scaled_dot_product_flash_attention`, `_efficient_attention`).
_PHILOX = {"efficient": 16}
_FLASH_PHILOX = 24


def rank_heads(builder: Builder, mixer: Attention) -> tuple[int, int]:
    """Query heads and key/value heads of one tensor-parallel rank."""
    ranks = builder.step.tensor_ranks
    return max(1, mixer.heads // ranks), max(1, mixer.kv_heads // ranks)


def attend(
    builder: Builder,
    queries: Value,
    keys: Value,
    values: Value,
    mixer: Attention,
    traits: Traits,
    by_head: bool = False,
    own_bias: bool = True,
) -> Value:
    """From queries, keys and values to the input of the output projection.

    Parameters
    ----------
    builder
        Writes the tape.
    queries, keys, values
        Of all heads.
    mixer, traits
        Shape, and soft cap and dropout.
    by_head
        Queries lie in memory head by head, and so does what a kernel gives, which is then copied.
    own_bias
        A bias of positions is joined with a mask anew in each layer.
    """
    step, tape = builder.step, builder.tape
    padded = step.masked
    if step.autocast:
        queries, keys, values = (tape.cast(one, step.compute) for one in (queries, keys, values))
    kind = step.attention
    if traits.position_bias != "none" and not step.flash:
        # A bias of each head and pair takes the mask's place; without a mask to join it with, all layers share it.
        step = replace(step, masked=True)
        builder = builder.stepping(step)
    if kind == "sdpa":
        kind = chosen_sdpa(step, mixer, queries.dtype) if builder.manner.sdpa else "eager"
        if builder.manner.splits == "copies" and mixer.heads != mixer.kv_heads:
            # Falcon leaves one key for all heads to be broadcast, which no fused kernel does.
            kind = "math"
    if traits.attention_softcap and kind not in ("flex_attention",) and not step.flash:
        kind = "eager"
    if kind == "eager":
        return _eager(builder, queries, keys, values, mixer, traits, by_head)
    if kind == "math":
        return _math(builder, queries, keys, values, mixer)
    if kind != "efficient" and mixer.value_dim != mixer.head_dim:
        # A flash kernel has one width for all: values are padded, and the output is cut to size.
        width = step.tokens * rank_heads(builder, mixer)[1] * mixer.head_dim
        values = tape.run("pad", (values,), width, values.dtype)
        shape = replace(mixer, value_dim=mixer.head_dim)
        mixed = _fused(builder, queries, keys, values, shape, kind)
        return tape.run("cut", (mixed,), step.tokens * mixer.output_width // step.tensor_ranks, values.dtype)
    mask = _mask_bytes(builder, mixer, traits, kind, own_bias, padded, DTYPE_BYTES[queries.dtype])
    mixed = _fused(builder, queries, keys, values, mixer, kind, mask)
    return tape.copy(mixed) if by_head and kind != "efficient" else mixed


def _mask_bytes(
    builder: Builder, mixer: Attention, traits: Traits, kind: str, own_bias: bool, padded: bool, width: int
) -> int:
    """Bytes of the additive mask that the memory-efficient kernel keeps: one for all heads, or a bias of each.

    Its elements are as wide as those of the queries.
    """
    step = builder.step
    if kind != "efficient" or not step.masked:
        return 0
    if traits.position_bias != "none":
        pairs = step.length * step.keys
        if padded:
            # With a mask of its own for each sequence the bias becomes one for each, even where all layers share it
            # (transformers 5.23 `integrations/sdpa_attention.py: create_position_bias_mask`).
            return step.batch * rank_heads(builder, mixer)[0] * pairs * width
        # Where what lies ahead is masked, a byte for each pair says so.
        ahead = pairs if step.attends_back else 0
        return rank_heads(builder, mixer)[0] * pairs * width + ahead if own_bias else 0
    return step.batch * max(1, step.mask_heads) * step.length * step.keys * width


def _fused(
    builder: Builder,
    queries: Value,
    keys: Value,
    values: Value,
    mixer: Attention,
    kind: str,
    mask: int = 0,
) -> Value:
    """A kernel that never holds scores: it keeps queries, keys, values, output and log-sum-exp."""
    step, tape = builder.step, builder.tape
    heads, kv_heads = rank_heads(builder, mixer)
    if heads != kv_heads != 1 and (kind == "efficient" or (step.repeats_keys and not step.flash)):
        # A single head is repeated as a view.
        keys = repeated(builder, keys, heads // kv_heads)
        values = repeated(builder, values, heads // kv_heads)
    rows = step.length if kind != "efficient" else round_up(step.length, 32)
    statistics = 4 * step.batch * heads * rows
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


def repeated(builder: Builder, value: Value, times: int) -> Value:
    """Keys or values for all query heads of their group (`repeat_kv`)."""
    return builder.tape.run("repeat", (value,), value.elements * times, value.dtype)


def _broadcast(step: Step, heads: int, kv_heads: int) -> bool:
    """Whether one head's keys serve all heads of a single sequence as a view: one stride leads to every head."""
    return heads != kv_heads == 1 == step.batch


def _eager(
    builder: Builder,
    queries: Value,
    keys: Value,
    values: Value,
    mixer: Attention,
    traits: Traits,
    by_head: bool,
) -> Value:
    """Scores, softmax, dropout, and a product with the values (`eager_attention_forward`)."""
    step, tape = builder.step, builder.tape
    heads, kv_heads = rank_heads(builder, mixer)
    times = heads // kv_heads
    if "softmax" in step.kernels:
        return _fused_softmax(builder, queries, keys, values, mixer, traits)
    # A batched product copies what does not lie in memory head by head, but for a single sequence, of which heads are
    # one stride apart (`aten/src/ATen/native/LinearAlgebra.cpp: matmul`).
    single = step.batch == 1
    queries = queries if by_head or single else tape.copy(queries)
    if not _broadcast(step, heads, kv_heads):
        if times > 1 or not single:
            values = repeated(builder, values, times)
        if times > 1 or not (by_head or single):
            keys = repeated(builder, keys, times)
    size = step.batch * heads * step.length * step.keys
    if builder.manner.softmax == "float" and not step.autocast:
        queries, keys = tape.cast(queries, "fp32"), tape.cast(keys, "fp32")
    if builder.manner.disentangled:
        scores = disentangled_scores(builder, queries, keys, heads, mixer.head_dim)
    else:
        scores = tape.run("scores", (queries, keys), size, queries.dtype, saves=(queries, keys))
        scores = tape.scale(scores)
    if traits.attention_softcap:
        bent = tape.run("tanh", (tape.scale(scores),), size, scores.dtype, saves_output=True)
        scores = tape.scale(bent)
    if not builder.manner.disentangled and (
        step.masked or step.attends_back or traits.position_bias != "none"
    ):
        scores = tape.run("add mask", (scores,), size, scores.dtype, passes=True)
    sinks = builder.manner.softmax == "sinks"
    shares = _with_sinks(builder, scores, heads) if sinks else _shares(builder, scores)
    shares = tape.dropout(tape.cast(shares, values.dtype), traits.attention_dropout if step.training else 0.0)
    out = step.tokens * heads * mixer.value_dim
    mixed = tape.run("mix", (shares, values), out, values.dtype, saves=(shares, values))
    return tape.copy(mixed)


def _fused_softmax(
    builder: Builder, queries: Value, keys: Value, values: Value, mixer: Attention, traits: Traits
) -> Value:
    """Scores, a kernel that scales, masks and normalises them in their own dtype, dropout, a product with the values.

    Megatron-LM `core/transformer/dot_product_attention.py`, `core/fusions/fused_softmax.py`: the backward pass of the
    kernel writes over the gradient that it is given. Sequences come first in memory, so that no head is copied.
    """
    step, tape = builder.step, builder.tape
    heads, kv_heads = rank_heads(builder, mixer)
    if heads != kv_heads:
        keys = repeated(builder, keys, heads // kv_heads)
        values = repeated(builder, values, heads // kv_heads)
    size = step.batch * heads * step.length * step.keys
    scores = tape.run("scores", (queries, keys), size, queries.dtype, saves=(queries, keys))
    shares = tape.run("softmax", (scores,), size, scores.dtype, saves_output=True, passes=True)
    shares = tape.dropout(shares, traits.attention_dropout if step.training else 0.0)
    out = step.tokens * heads * mixer.value_dim
    return tape.copy(tape.run("mix", (shares, values), out, values.dtype, saves=(shares, values)))


def _shares(builder: Builder, scores: Value) -> Value:
    """Softmax; one that asks for float32 casts first, but for float16, which the kernel reads itself.

    `aten/src/ATen/native/SoftMax.cpp: softmax`: on a GPU half to float in one.
    """
    tape, step = builder.tape, builder.step
    wide = builder.manner.softmax in ("wide", "float") or step.autocast
    if wide and scores.dtype != "fp16":
        scores = tape.cast(scores, "fp32")
    return tape.run(
        "softmax", (scores,), scores.elements, "fp32" if wide else scores.dtype, saves_output=True
    )


def _with_sinks(builder: Builder, scores: Value, heads: int) -> Value:
    """A column more for each head's sink, and its share cut off afterwards (`gpt_oss: eager_attention_forward`)."""
    tape, step = builder.tape, builder.step
    size = scores.elements + step.batch * heads * step.length
    # Under autocast the sinks are float32, and so is what they are put together with.
    dtype = "fp32" if step.autocast else scores.dtype
    joined = tape.run("cat", (scores,), size, dtype)
    rows = step.batch * heads * step.length
    shifted = tape.run("sub max", (joined,), size, dtype, kept_bytes=8 * rows, passes=True)
    shares = tape.run("softmax", (shifted,), size, dtype, saves_output=True)
    return tape.part(shares, scores.elements)


def _math(builder: Builder, queries: Value, keys: Value, values: Value, mixer: Attention) -> Value:
    """SDPA written out: scaled queries and keys, softmax, values.

    16-bit inputs are float32 inside (`aten/src/ATen/native/transformers/attention.cpp:
    _scaled_dot_product_attention_math`, unless `allow_fp16_bf16_reduction_math_sdp` says otherwise).
    """
    step, tape, dtype = builder.step, builder.tape, queries.dtype
    heads, kv_heads = rank_heads(builder, mixer)
    queries, keys, values = (tape.cast(one, "fp32") for one in (queries, keys, values))
    queries, keys = tape.scale(queries), tape.scale(keys)
    # Falcon leaves its head to be broadcast; `enable_gqa` repeats heads (`repeat_interleave`).
    leaves = builder.manner.splits == "copies" and _broadcast(step, heads, kv_heads)
    if heads != kv_heads and not leaves:
        keys = repeated(builder, keys, heads // kv_heads)
        values = repeated(builder, values, heads // kv_heads)
    size = step.batch * heads * step.length * step.keys
    scores = tape.run("scores", (queries, keys), size, "fp32", saves=(queries, keys))
    scores = tape.run("add mask", (scores,), size, "fp32", passes=True)
    shares = tape.run("softmax", (scores,), size, "fp32", saves_output=True)
    out = step.tokens * heads * mixer.value_dim
    mixed = tape.run("mix", (shares, values), out, "fp32", saves=(shares, values))
    return tape.copy(tape.cast(mixed, dtype))
