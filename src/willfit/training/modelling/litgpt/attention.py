"""LitGPT's attention (`model.py: CausalSelfAttention`, `adapter.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from willfit.architectures.mixers import Attention
from willfit.architectures.model import Tensor
from willfit.architectures.traits import Traits
from willfit.quantities import DTYPE_BYTES, round_up
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.kernels import chosen_sdpa
from willfit.training.modelling.litgpt.code import PROMPT_LENGTH, Code
from willfit.training.modelling.litgpt.linear import fused, linear
from willfit.training.modelling.scores import attend
from willfit.training.tape import Value, Weight

#: The mask of a prompt is padded to whole groups of this many keys (torch `attention.cu: pad_bias<16>`).
_MASK_KEYS = 16


def attention(
    builder: Builder,
    value: Value,
    tensors: Sequence[Tensor],
    mixer: Attention,
    traits: Traits,
    code: Code,
    rotated: int,
) -> Value:
    """Project, rotate, attend, and project back.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The normed input.
    tensors, mixer, traits
        The attention's tensors, its shape, and what belongs to the family.
    code
        The version's code.
    rotated
        Elements of a head that are rotated.
    """
    tape = builder.tape
    matrices = [tensor for tensor in tensors if tensor.kind == "linear"]
    biases = [tensor for tensor in tensors if tensor.kind == "bias"]
    inward, outward = matrices[:-1], matrices[-1]
    both = fused(builder, value, inward, [b for b in biases if _module(b) != _module(outward)], code)
    tokens, heads, kv_heads = builder.step.tokens, mixer.heads, mixer.kv_heads
    size, kv_size = tokens * heads * mixer.head_dim, tokens * kv_heads * mixer.head_dim
    queries, keys, values = tape.split(both, (size, kv_size, kv_size))
    grouped = heads != kv_heads
    if grouped and code.interleaved:
        queries = tape.run("reshape", (queries,), size, queries.dtype, passes=True)
        keys, values = _expanded(builder, keys, size), _expanded(builder, values, size)
    part = rotated / mixer.head_dim
    queries, keys = _roped(builder, queries, part), _roped(builder, keys, part)
    if grouped and not code.interleaved:
        keys, values = _expanded(builder, keys, size), _expanded(builder, values, size)
    mixed = _attended(builder, queries, keys, values, replace(mixer, kv_heads=heads), traits)
    if code.prompts:
        mixed = _prompted(builder, queries, mixed, inward, mixer, code)
    kind = chosen_sdpa(builder.step, replace(mixer, kv_heads=heads), queries.dtype)
    if kind == "flash" or traits.attention_softcap or code.prompts:
        # Flash kernels lay their output out as queries are, heads outside: putting them side by side copies.
        mixed = tape.run("reshape", (mixed,), mixed.elements, mixed.dtype, passes=True)
    bias = next((b for b in biases if _module(b) == _module(outward)), None)
    result = linear(builder, mixed, outward, bias, code)
    tape.hold(mixed)
    return result


def _expanded(builder: Builder, value: Value, size: int) -> Value:
    """A copy for every query head; gradients are added up over a group."""
    return builder.tape.run("expand", (value,), size, value.dtype)


def _roped(builder: Builder, value: Value, part: float) -> Value:
    """`apply_rope` on a part of each head, and `cat` with the rest. Cosine and sine are float32."""
    tape, dtype = builder.tape, value.dtype
    size = int(value.elements * part)
    rest = value.elements - size
    turned = value if not rest else tape.part(value, size)
    first, second = tape.part(turned, size // 2), tape.part(turned, size - size // 2)
    negated = tape.run("neg", (second,), second.elements, dtype)
    rotated = tape.run("cat", (negated, first), size, dtype, passes=True)
    cosines = tape.run("x * cos", (turned,), size, "fp32", backward_temp=4 * size)
    sines = tape.run("rotated * sin", (rotated,), size, "fp32", backward_temp=4 * size)
    roped = tape.cast(tape.run("add", (cosines, sines), size, "fp32", passes=True), dtype)
    tape.hold(rotated)
    behind = tape.part(value, rest)
    return tape.run("cat", (roped, behind), value.elements, dtype, passes=True)


def _attended(
    builder: Builder, queries: Value, keys: Value, values: Value, mixer: Attention, traits: Traits
) -> Value:
    if not traits.attention_softcap:
        return attend(builder, queries, keys, values, mixer, traits)
    # Scores are bent, so that no fused kernel serves.
    step, tape = builder.step, builder.tape
    size, dtype = step.batch * mixer.heads * step.length * step.keys, queries.dtype
    scores = tape.scale(tape.run("scores", (queries, keys), size, dtype, saves=(queries, keys)))
    bent = tape.run("tanh", (tape.scale(scores),), size, dtype, saves_output=True)
    scores = tape.run("add mask", (tape.scale(bent),), size, dtype, passes=True)
    shares = tape.cast(tape.run("softmax", (scores,), size, "fp32", saves_output=True), dtype)
    return tape.run("mix", (shares, values), queries.elements, dtype, saves=(shares, values))


def _prompted(
    builder: Builder,
    queries: Value,
    mixed: Value,
    inward: Sequence[Tensor],
    mixer: Attention,
    code: Code,
) -> Value:
    """What the queries find in a trained prompt, times a gate for each head, is added (`adapter.py`)."""
    step, tape, dtype = builder.step, builder.tape, queries.dtype
    hidden = inward[0].shape[-1]
    prompt = tape.run(
        "prompt", (), PROMPT_LENGTH * hidden, dtype, weights=(Weight(PROMPT_LENGTH * hidden, dtype, True),)
    )
    both = fused(builder, prompt, inward, (), code, rows=PROMPT_LENGTH)
    width = PROMPT_LENGTH * mixer.head_dim
    _, keys, values = tape.split(both, (width * mixer.heads, width * mixer.kv_heads, width * mixer.kv_heads))
    keys, values = (_expanded(builder, one, width * mixer.heads) for one in (keys, values))
    rows = round_up(step.length, 32)
    kept = 4 * step.batch * mixer.heads * rows + step.length * _MASK_KEYS * DTYPE_BYTES[dtype]
    found = tape.run(
        "efficient", (queries, keys, values), mixed.elements, dtype, saves=(queries, keys, values),
        saves_output=True, kept_bytes=kept, backward_temp=4 * step.batch * mixer.heads * step.length,
    )  # fmt: skip
    gated = tape.run(
        "* gate", (found,), found.elements, dtype, saves=(found,), weights=(Weight(mixer.heads, dtype, True),),
        backward_temp=found.bytes,
    )  # fmt: skip
    return tape.add(mixed, gated)


def _module(tensor: Tensor) -> str:
    return tensor.name.rpartition(".")[0]
