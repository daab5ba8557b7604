"""Mamba-1: the scan token by token that transformers writes in PyTorch, and the fused kernels of `mamba_ssm`."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.mixers import Recurrent
from willfit.architectures.model import Tensor
from willfit.quantities import DTYPE_BYTES, ceil_div
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.convolution import convolved, named, needed
from willfit.training.tape import Value, Weight

#: Tokens between two states that the kernel keeps (`mamba_ssm/csrc/selective_scan/selective_scan.cpp`).
_KERNEL_CHUNK = 2048

#: Norms of the time step, of B and of C (Jamba, Falcon-Mamba).
_INNER_NORMS = ("dt_layernorm.weight", "b_layernorm.weight", "c_layernorm.weight")


def mamba(builder: Builder, value: Value, tensors: Sequence[Tensor], mixer: Recurrent) -> Value:
    """Project, convolve, scan, gate, and project back (transformers `MambaMixer`, `JambaMambaMixer`).

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The normed input.
    tensors, mixer
        Of the mixer.
    """
    tape, step = builder.tape, builder.step
    inward, outward = needed(tensors, "in_proj"), needed(tensors, "out_proj")
    inner, rows = mixer.output_width // step.tensor_ranks, step.tokens
    state = mixer.recurrent // mixer.output_width
    # The projection to time step, B and C.
    rank = mixer.projected_width - 2 * mixer.output_width - 2 * state
    norms = [t for t in tensors if t.kind == "norm" and t.name.endswith(_INNER_NORMS)]
    projected = builder.linear(value, inward)
    if "mamba_ssm" in step.kernels and not norms:
        return _fused(builder, projected, inner, state, rank, outward)
    mixed, gate = tape.split(projected, (rows * inner,) * 2)
    mixed = convolved(builder, mixed, tensors, mixer.conv_kernel)
    small = _small(builder, mixed, tensors, rank + 2 * state)
    times, first, second = tape.split(small, (rows * rank, rows * state, rows * state))
    if norms:
        times, first, second = (
            builder.norm(part, norm, "rms", rows=rows)
            for part, norm in zip((times, first, second), norms, strict=False)
        )
    times = tape.run(
        "mm",
        (times,),
        rows * inner,
        step.compute,
        saves=(times,),
        weights=_weights(builder, tensors, "dt_proj", "dt_proj_weight"),
    )
    if "mamba_ssm" in step.kernels:
        scanned = _kernel(builder, (mixed, times, first, second, gate), inner, state)
        return builder.linear(tape.copy(scanned), outward)
    scanned = _scanned(builder, mixed, times, first, second, inner, state)
    gated = tape.multiply(scanned, builder.activation(gate, "silu"))
    return builder.linear(tape.cast(tape.copy(gated), step.compute), outward)


def _small(builder: Builder, mixed: Value, tensors: Sequence[Tensor], width: int) -> Value:
    """Time step, B and C of each token, for which channels are copied behind each other."""
    tape, rows = builder.tape, builder.step.tokens
    matrix = named(tensors, "x_proj", "x_proj_weight")
    given = tape.copy(mixed)
    if matrix is not None and matrix.kind == "linear":
        return builder.linear(given, matrix)
    return tape.run(
        "mm",
        (given,),
        rows * width,
        given.dtype,
        saves=(given,),
        weights=_weights(builder, tensors, "x_proj_weight"),
    )


def _weights(builder: Builder, tensors: Sequence[Tensor], *names: str) -> tuple[Weight, ...]:
    tensor = named(tensors, *names)
    return (builder.stored(tensor).weight,) if tensor is not None else ()


def _scanned(
    builder: Builder, mixed: Value, times: Value, first: Value, second: Value, inner: int, state: int
) -> Value:
    """The scan, for which decays and inputs of all tokens, and then each token's state, are there at once."""
    tape, rows = builder.tape, builder.step.tokens
    shifted = tape.run("dt + bias", (times,), times.elements, times.dtype)
    times = tape.run("softplus", (shifted,), times.elements, times.dtype, saves=(shifted,))
    size = rows * inner * state
    exponent = tape.run("mul A", (times,), size, "fp32", saves=(times,), backward_temp=4 * size)
    decays = tape.run("exp", (exponent,), size, "fp32", saves_output=True)
    paced = tape.multiply(times, tape.cast(first, "fp32"))
    paced = tape.run("mul", (times,), size, "fp32") if paced.elements != size else paced
    inputs = tape.multiply(paced, tape.cast(mixed, "fp32"))
    # Each token keeps its state twice, in float32 for the next and narrow for the product with C.
    width = DTYPE_BYTES[mixed.dtype]
    scanned = tape.run(
        "tokens", (decays, inputs, second), rows * inner, mixed.dtype, saves=(decays, second),
        kept_bytes=(4 + width) * size, backward_temp=2 * 4 * size,
    )  # fmt: skip
    direct = tape.run("mul D", (mixed,), rows * inner, "fp32", saves=(mixed,))
    return tape.add(scanned, direct)


def _kernel(builder: Builder, inputs: tuple[Value, ...], inner: int, state: int) -> Value:
    """`selective_scan_fn`: it keeps its inputs, its output, and a state every so many tokens."""
    tape, step = builder.tape, builder.step
    states = 4 * step.batch * inner * 2 * state * ceil_div(step.length, _KERNEL_CHUNK)
    return tape.run(
        "selective scan", inputs, step.tokens * inner, step.compute, saves=inputs, saves_output=True,
        kept_bytes=states,
    )  # fmt: skip


def _fused(builder: Builder, projected: Value, inner: int, state: int, rank: int, outward: Tensor) -> Value:
    """`mamba_inner_fn`: from the projection in to the projection out in one.

    It keeps the projected input, time steps with B and C (the latter two once more, in the order of the kernel), the
    scan's output and states; convolution and time steps are made again (`mamba_ssm/ops/selective_scan_interface.py:
    MambaInnerFn`).
    """
    tape, step = builder.tape, builder.step
    rows, width = step.tokens, DTYPE_BYTES[projected.dtype]
    states = 4 * step.batch * inner * 2 * state * ceil_div(step.length, _KERNEL_CHUNK)
    kept = width * rows * (rank + 4 * state + inner) + states
    weight = builder.stored(outward).weight
    return tape.run(
        "mamba", (projected,), rows * weight.elements // inner, projected.dtype, saves=(projected,), kept_bytes=kept,
        weights=(weight,), forward_temp=3 * width * rows * inner, backward_temp=6 * width * rows * inner,
    )  # fmt: skip
