"""Mamba-2: the scan by chunks that transformers writes in PyTorch, and the fused kernel of `mamba_ssm`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from willfit.architectures.mixers import Recurrent
from willfit.architectures.model import Tensor
from willfit.quantities import DTYPE_BYTES, round_up
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.convolution import convolved, named, needed
from willfit.training.tape import Value

#: Tokens of a chunk if a config does not say (`Mamba2Config.chunk_size`).
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Elements over all sequences, padded to whole chunks."""

    heads: int
    width: int
    groups: int
    state: int
    chunk: int
    rows: int
    chunks: int
    batch: int

    @property
    def values(self) -> int:
        """Of what the heads carry."""
        return self.rows * self.heads * self.width

    @property
    def shared(self) -> int:
        """Of B or C, repeated for all heads."""
        return self.rows * self.heads * self.state

    @property
    def pairs(self) -> int:
        """Of pairs of tokens within chunks."""
        return self.rows * self.heads * self.chunk

    @property
    def states(self) -> int:
        """Of the state behind each chunk."""
        return self.batch * self.chunks * self.heads * self.width * self.state


def mamba2(builder: Builder, value: Value, tensors: Sequence[Tensor], mixer: Recurrent) -> Value:
    """Project, convolve, scan, gate and norm, and project back (transformers `Mamba2Mixer`).

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
    ranks = step.tensor_ranks
    inner, heads = mixer.output_width // ranks, max(1, mixer.heads // ranks)
    state = mixer.recurrent // mixer.output_width
    channels = mixer.conv_channels // ranks
    groups = max(1, (channels - inner) // (2 * state))
    chunk = mixer.chunk or _CHUNK
    length = round_up(step.length, chunk)
    sizes = _Sizes(
        heads, inner // heads, groups, state, chunk, step.batch * length, length // chunk, step.batch
    )
    norm = named(tensors, "norm")
    if builder.manner.scales_mixer:
        value = tape.scale(value)
    projected = builder.linear(value, inward)
    if builder.manner.scales_mixer:
        projected = tape.scale(projected)
    if "mamba_ssm" in step.kernels:
        return _fused(builder, projected, sizes, outward, norm)
    rows = step.tokens
    gate, mixed, times = tape.split(projected, (rows * inner, rows * channels, rows * heads))
    mixed = convolved(builder, mixed, tensors, mixer.conv_kernel)
    scanned = _scanned(builder, mixed, times, sizes, rows)
    if norm is not None:
        scanned = gated_norm(builder, scanned, gate, norm, rows * groups)
    else:
        scanned = tape.multiply(scanned, builder.activation(gate, "silu"))
    return builder.linear(tape.cast(scanned, step.compute), outward)


def _scanned(builder: Builder, mixed: Value, times: Value, sizes: _Sizes, rows: int) -> Value:
    """The scan, all in float32 (`mamba2_chunk_scan`); each einsum copies its factors into the order of a product."""
    tape = builder.tape
    own, shared = rows * sizes.heads * sizes.width, rows * sizes.groups * sizes.state
    carried, first, second = tape.split(mixed, (own, shared, shared))
    shifted = tape.run("dt + bias", (times,), times.elements, times.dtype)
    if builder.step.autocast:
        shifted = tape.cast(shifted, "fp32")
    bent = tape.run("softplus", (shifted,), times.elements, shifted.dtype, saves=(shifted,))
    bounded = tape.run("clamp", (bent,), times.elements, bent.dtype, saves=(bent,))
    carried = tape.cast(carried, "fp32")
    keys, queries = (
        tape.run("repeat", (tape.cast(one, "fp32"),), rows * sizes.heads * sizes.state, "fp32")
        for one in (first, second)
    )
    skipped = tape.run("pad", (carried,), sizes.values, "fp32")
    # The weight D is trained: its product keeps what it multiplies.
    direct = tape.run("mul D", (skipped,), sizes.values, "fp32", saves=(skipped,))
    scaled = tape.multiply(carried, tape.cast(bounded, "fp32"))
    steps = tape.cast(bounded, "fp32")
    decay = tape.run("mul A", (steps,), times.elements, "fp32", saves=(steps,))
    scaled = tape.run("pad", (scaled,), sizes.values, "fp32")
    keys, queries = (tape.run("pad", (one,), sizes.shared, "fp32") for one in (keys, queries))
    total = tape.run("cumsum", (decay,), sizes.rows * sizes.heads, "fp32")
    # Decays between any two tokens of a chunk.
    masks = 2 * sizes.chunk * sizes.chunk
    between = tape.run(
        "segment sum", (decay,), sizes.pairs, "fp32", kept_bytes=masks, forward_temp=4 * sizes.pairs
    )
    between = tape.run("exp", (between,), sizes.pairs, "fp32", saves_output=True)
    likeness = _einsum(builder, queries, keys, sizes.pairs)
    weights = tape.multiply(likeness, between)
    within = _einsum(builder, weights, scaled, sizes.values)
    fading = tape.run("exp", (total,), sizes.rows * sizes.heads, "fp32", saves_output=True)
    states = _einsum(builder, tape.multiply(keys, fading), scaled, sizes.states)
    # States behind chunks, with one of zeros in front.
    ends = sizes.states // sizes.chunks * (sizes.chunks + 1)
    joined = tape.run("cat", (states,), ends, "fp32")
    passed = _factor(builder, joined)
    through = sizes.batch * sizes.heads * (sizes.chunks + 1) ** 2
    states = tape.run(
        "bmm",
        (passed,),
        ends,
        passed.dtype,
        saves=(passed,),
        kept_bytes=4 * through + 2 * (sizes.chunks + 1) ** 2,
    )
    states = tape.part(states, sizes.states)
    rising = tape.run("exp", (total,), sizes.rows * sizes.heads, "fp32", saves_output=True)
    across = tape.multiply(_einsum(builder, queries, states, sizes.values), rising)
    output = tape.copy(tape.add(within, across))
    return tape.part(tape.add(output, direct), own)


def _einsum(builder: Builder, one: Value, other: Value, elements: int) -> Value:
    tape = builder.tape
    one, other = _factor(builder, one), _factor(builder, other)
    return tape.run("bmm", (one, other), elements, one.dtype, saves=(one, other))


def _factor(builder: Builder, value: Value) -> Value:
    """A factor in the order of the product, which autocast takes in its own dtype."""
    copied = builder.tape.copy(value)
    return builder.tape.cast(copied, builder.step.compute) if builder.step.autocast else copied


def gated_norm(builder: Builder, value: Value, gate: Value, norm: Tensor, rows: int) -> Value:
    """A value times the bent gate, normed group by group, all in float32 (`MambaRMSNormGated`)."""
    tape = builder.tape
    value = tape.multiply(tape.cast(value, "fp32"), builder.activation(tape.cast(gate, "fp32"), "silu"))
    return builder.norm(value, norm, "rms", rows=rows)


def _fused(builder: Builder, projected: Value, sizes: _Sizes, outward: Tensor, norm: Tensor | None) -> Value:
    """`mamba_split_conv1d_scan_combined`: from the projection in to the projection out in one.

    It keeps the projected input, the scan's output before the gate, and a statistic a row and group; the backward pass
    convolves again and makes states and products within chunks anew (`mamba_ssm/ops/triton/ssd_combined.py:
    MambaSplitConv1dScanCombinedFn`).
    """
    tape, step = builder.tape, builder.step
    width = DTYPE_BYTES[projected.dtype]
    rows = step.tokens
    inner = rows * sizes.heads * sizes.width
    again = rows * (sizes.heads * sizes.width + 2 * sizes.groups * sizes.state)
    chunked = 4 * (2 * sizes.states + sizes.rows * sizes.groups * sizes.chunk)
    weights = tuple(builder.stored(tensor).weight for tensor in (outward, norm) if tensor is not None)
    hidden = weights[0].elements // (inner // rows)
    return tape.run(
        "mamba2", (projected,), rows * hidden, projected.dtype, saves=(projected,),
        kept_bytes=width * inner + (4 * rows * sizes.groups if norm is not None else 0), weights=weights,
        forward_temp=width * again + chunked, backward_temp=width * (2 * again + 3 * inner) + 2 * chunked,
    )  # fmt: skip
