"""Kimi's delta attention, whose decay is one for each channel: in PyTorch, and by the kernels of `fla`."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.mixers import Recurrent
from willfit.architectures.model import Tensor
from willfit.quantities import DTYPE_BYTES
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.convolution import convolved, named, needed
from willfit.training.modelling.delta import CHUNK, Widths, prepared, widths_of
from willfit.training.tape import Value


def kimi_delta(builder: Builder, value: Value, tensors: Sequence[Tensor], mixer: Recurrent) -> Value:
    """Project, convolve, scan, norm behind a gate, and project back (transformers `KimiLinearDeltaAttention`).

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The normed input.
    tensors, mixer
        Of the mixer.
    """
    tape, rows = builder.tape, builder.step.tokens
    widths = widths_of(builder, mixer)
    size = rows * widths.heads * widths.value
    parts = [_projected(builder, value, tensors, name) for name in ("q_proj", "k_proj", "v_proj")]
    mixed = tape.run("cat", parts, sum(part.elements for part in parts), value.dtype)
    mixed = convolved(builder, mixed, tensors, mixer.conv_kernel)
    query, key, own = tape.split(mixed, [part.elements for part in parts])
    decay = _decay(builder, _projected(builder, value, tensors, "f_proj", "f_a_proj", "f_b_proj"))
    beta = _projected(builder, value, tensors, "b_proj")
    beta = tape.run("sigmoid", (beta,), beta.elements, beta.dtype, saves_output=True)
    if "fla" in builder.step.kernels:
        scanned = _fused(builder, (query, key, own, decay, beta), widths)
    else:
        scanned = _scanned(builder, query, key, own, decay, beta, widths)
    gate = _projected(builder, value, tensors, "g_proj", "g_a_proj", "g_b_proj")
    norm, outward = needed(tensors, "o_norm"), needed(tensors, "o_proj")
    done = builder.norm(scanned, norm, "rms_float32", rows=size // widths.value, fixed=True)
    bent = tape.cast(gate, "fp32")
    bent = tape.run("sigmoid", (bent,), size, "fp32", saves_output=True)
    return builder.linear(tape.cast(tape.multiply(done, bent), value.dtype), outward)


def _projected(builder: Builder, value: Value, tensors: Sequence[Tensor], *names: str) -> Value:
    """One projection, or two behind each other."""
    for name in names:
        tensor = named(tensors, name)
        if tensor is not None:
            value = builder.linear(value, tensor)
    return value


def _decay(builder: Builder, value: Value) -> Value:
    """Minus exp(A) log(1 + exp(x)) in float32, x itself where it is large (`KimiLinearForgetGate`)."""
    tape, size = builder.tape, value.elements
    wide = tape.cast(value, "fp32")
    shifted = tape.run("x + bias", (wide,), size, "fp32")
    risen = tape.run("exp", (shifted,), size, "fp32", saves_output=True)
    plus = tape.run("add 1", (risen,), size, "fp32", passes=True)
    logarithm = tape.run("log", (plus,), size, "fp32", saves=(plus,))
    chosen = tape.run("where", (shifted, logarithm), size, "fp32", kept_bytes=size)
    return tape.run("mul A", (chosen,), size, "fp32", saves=(chosen,))


def _scanned(
    builder: Builder, query: Value, key: Value, own: Value, decay: Value, beta: Value, widths: Widths
) -> Value:
    """The scan in float32, for which every pair of tokens of a chunk has a decay in every channel.

    `chunk_kimi_delta_attention`. The inverse within chunks is made row by row, and each row keeps the rows before it.
    """
    tape, heads = builder.tape, widths.heads
    keyed, carried = widths.rows * heads * widths.key, widths.rows * heads * widths.value
    pairs = keyed * CHUNK
    query, key = (prepared(builder, one, heads, widths, True) for one in (query, key))
    own, wide, beta = (tape.cast(one, "fp32") for one in (own, decay, beta))
    inputs = [
        tape.run("pad", (one,), size, "fp32")
        for one, size in zip((query, key, own), (keyed, keyed, carried), strict=True)
    ]
    padded = tape.run("cumsum", (wide,), keyed, "fp32")
    between = tape.run("exp", (padded,), pairs, "fp32", saves_output=True)
    product = tape.run("mul", (inputs[1],), pairs, "fp32")
    likeness = tape.run("mul", (product, between), pairs, "fp32", saves=(product, between))
    triangle = sum(row * row + row for row in range(1, CHUNK))
    inverse = widths.rows * heads * CHUNK
    attn = tape.run(
        "rows",
        (likeness,),
        inverse,
        "fp32",
        saves_output=True,
        kept_bytes=4 * widths.rows * heads // CHUNK * triangle,
    )
    # Each chunk: pairs of queries and keys in every channel, five products with decays, its new values and state.
    states = 4 * widths.state * widths.chunks
    kept = 4 * (pairs + inverse + 6 * keyed + 3 * carried) + states
    output = tape.run(
        "chunks", (*inputs, between, attn, beta), carried, "fp32", saves=inputs, kept_bytes=kept,
        backward_temp=4 * pairs,
    )  # fmt: skip
    return tape.run("cut", (output,), builder.step.tokens * heads * widths.value, builder.step.compute)


def _fused(builder: Builder, inputs: tuple[Value, Value, Value, Value, Value], widths: Widths) -> Value:
    """`chunk_kda`: it keeps its inputs, normed, and two matrices of a chunk's width for each row and head.

    `fla/ops/kda/chunk.py: ChunkKDAFunction`; decays are float32 in every channel.
    """
    tape, step = builder.tape, builder.step
    query, key, own, decay, beta = inputs
    width, single = DTYPE_BYTES[step.compute], step.tokens * widths.heads
    kept = query.bytes + key.bytes + 2 * 4 * single + 2 * width * single * CHUNK
    made = width * single * (2 * widths.key + widths.value) + width * widths.state * widths.chunks
    return tape.run(
        "kimi delta", inputs, own.elements, step.compute, saves=(own, decay, beta), kept_bytes=kept,
        forward_temp=made, backward_temp=2 * made + 4 * single * widths.key,
    )  # fmt: skip
