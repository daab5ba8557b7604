"""Attention with a trained prompt of its own beside it (LLaMA-Adapter as PEFT writes it)."""

from __future__ import annotations

from willfit.architectures.mixers import Attention
from willfit.architectures.model import Tensor
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.rotary import rotated
from willfit.training.modelling.scores import repeated
from willfit.training.tape import Value


def prompted(
    builder: Builder,
    attended: Value,
    given: Value,
    inward: tuple[Tensor, ...],
    outward: Tensor,
    mixer: Attention,
) -> Value:
    """What queries find in the layer's prompt, times a gate, is added to what attention gave.

    Queries are made anew, the prompt goes through the attention's own matrices of keys and values, scores are whole
    ones, and their softmax runs in float32 (PEFT `tuners/adaption_prompt/layer.py: AdaptedAttention.forward`, 0.21.2).

    Parameters
    ----------
    builder
        Writes the tape; its step has the prompt's length.
    attended, given
        What attention gave, and its input.
    inward, outward
        Matrices of queries, keys and values (or one of all three), and the one that projects back.
    mixer
        Shape of the heads.
    """
    step, tape, length = builder.step, builder.tape, builder.step.prompt_tokens
    dtype = attended.dtype
    prompt = tape.held(length * inward[0].shape[-1], dtype, grad=True)
    width = length * mixer.head_dim
    if len(inward) == 1:
        sizes = (width * mixer.heads, width * mixer.kv_heads, width * mixer.kv_heads)
        _, keys, values = tape.split(builder.linear(prompt, inward[0], rows=length), sizes)
        whole = builder.linear(given, inward[0])
        queries = tape.part(whole, step.tokens * mixer.heads * mixer.head_dim)
    else:
        keys, values = (builder.linear(prompt, tensor, rows=length) for tensor in inward[1:3])
        queries, _ = rotated(builder, builder.linear(given, inward[0]))
    keys, values = (
        repeated(builder, tape.run("repeat", (one,), step.batch * one.elements, dtype), _groups(mixer))
        for one in (keys, values)
    )
    size = step.tokens * mixer.heads * length
    scores = tape.scale(tape.run("scores", (queries, keys), size, queries.dtype, saves=(queries, keys)))
    shares = tape.run("softmax", (scores,), size, "fp32", saves_output=True)
    narrow = tape.cast(shares, queries.dtype)
    # The gate is one trained number: its gradient needs the shares, and is summed from a product as large.
    opened = tape.run("* gate", (narrow,), size, narrow.dtype, saves=(narrow,), backward_temp=narrow.bytes)
    mixed = tape.run("mix", (opened, values), queries.elements, dtype, saves=(opened, values))
    found = tape.copy(mixed)
    if len(inward) > 1:
        found = builder.linear(found, outward)
    return tape.add(attended, found)


def _groups(mixer: Attention) -> int:
    return mixer.heads // mixer.kv_heads
