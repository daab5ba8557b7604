"""The gated delta rule: the scan by chunks that transformers writes in PyTorch, and the kernels of `fla`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from willfit.architectures.mixers import Recurrent
from willfit.architectures.model import Tensor
from willfit.quantities import DTYPE_BYTES, round_up
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.convolution import convolved, named, needed
from willfit.training.tape import Value

#: Tokens of a chunk (`torch_chunk_gated_delta_rule`, `fla/ops/gated_delta_rule/chunk.py`).
CHUNK = 64


@dataclass(frozen=True, slots=True)
class Widths:
    """Of one delta net on a rank: heads of keys and of values, their widths, and rows padded to whole chunks."""

    key_heads: int
    heads: int
    key: int
    value: int
    rows: int
    chunks: int
    batch: int

    @property
    def state(self) -> int:
        """Elements of one state of all sequences."""
        return self.batch * self.heads * self.key * self.value


def gated_delta(builder: Builder, value: Value, tensors: Sequence[Tensor], mixer: Recurrent) -> Value:
    """Project, convolve, scan, norm behind a gate, and project back (transformers `Qwen3NextGatedDeltaNet`).

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
    widths = widths_of(builder, mixer)
    rows = step.tokens
    queries = rows * widths.key_heads * widths.key
    carried = rows * widths.heads * widths.value
    mixed, gate, times, rates = _projected(builder, value, tensors, widths, queries, carried)
    mixed = convolved(builder, mixed, tensors, mixer.conv_kernel)
    query, key, own = tape.split(mixed, (queries, queries, carried))
    beta = tape.run("sigmoid", (rates,), rates.elements, rates.dtype, saves_output=True)
    wide = tape.run("dt + bias", (tape.cast(times, "fp32"),), times.elements, "fp32")
    bent = tape.run("softplus", (wide,), times.elements, "fp32", saves=(wide,))
    decay = tape.run("mul A", (bent,), times.elements, "fp32", saves=(bent,))
    if "fla" in step.kernels:
        scanned = _fused(builder, (query, key, own, decay, beta), widths)
    else:
        scanned = _scanned(builder, query, key, own, decay, beta, widths)
    norm, outward = needed(tensors, "norm", "o_norm"), needed(tensors, "out_proj", "o_proj")
    return builder.linear(normed_behind_gate(builder, scanned, gate, norm, rows * widths.heads), outward)


def widths_of(builder: Builder, mixer: Recurrent) -> Widths:
    """A mixer's widths on a rank, from what it keeps: key width times value width a head, and convolved channels."""
    ranks, step = builder.step.tensor_ranks, builder.step
    value = mixer.output_width // mixer.heads
    key = mixer.recurrent // (mixer.heads * value)
    key_heads = (mixer.conv_channels - mixer.output_width) // (2 * key)
    length = round_up(step.length, CHUNK)
    return Widths(
        max(1, key_heads // ranks),
        max(1, mixer.heads // ranks),
        key,
        value,
        step.batch * length,
        length // CHUNK,
        step.batch,
    )


def _projected(
    builder: Builder, value: Value, tensors: Sequence[Tensor], widths: Widths, queries: int, carried: int
) -> tuple[Value, Value, Value, Value]:
    """What is convolved, the gate, and the inputs of decay and rate, from one matrix, two, or six."""
    tape = builder.tape
    both, few = named(tensors, "in_proj_qkvz"), named(tensors, "in_proj_ba")
    if both is not None and few is not None:
        # Heads lie side by side, each with all its parts: these are copied apart, and three put together again.
        joined, pair = builder.linear(value, both), builder.linear(value, few)
        first, second, third, gate = tape.split(joined, (queries, queries, carried, carried))
        mixed = tape.run("cat", (first, second, third), 2 * queries + carried, value.dtype)
        rates, times = tape.split(pair, (pair.elements // 2,) * 2)
        return mixed, tape.copy(gate), times, rates
    found = [builder.linear(value, t) for t in _in_order(tensors, _SEPARATE)]
    if len(found) == 4:
        mixed, gate, rates, times = found
        return mixed, gate, times, rates
    mixed = tape.run("cat", found[:3], 2 * queries + carried, value.dtype)
    gate, rates, times = found[3:]
    return mixed, gate, times, rates


#: Names of projections: what is convolved (`in_proj_qkv`, or three), the gate, the rate, the decay.
_SEPARATE = (
    ("in_proj_qkv",), ("q_proj",), ("k_proj",), ("v_proj",), ("in_proj_z", "g_proj"), ("in_proj_b", "b_proj"),
    ("in_proj_a", "a_proj"),
)  # fmt: skip


def _in_order(tensors: Sequence[Tensor], names: Sequence[tuple[str, ...]]) -> list[Tensor]:
    return [tensor for group in names if (tensor := named(tensors, *group)) is not None]


def prepared(builder: Builder, value: Value, heads: int, widths: Widths, normed: bool) -> Value:
    """Queries or keys in float32 for every head, divided by their length (`l2norm`)."""
    tape = builder.tape
    repeated = heads * value.elements // (builder.step.tokens * widths.key) // widths.key_heads
    size = builder.step.tokens * widths.heads * widths.key
    wide = tape.run("to float", (value,), size if repeated else value.elements, "fp32")
    if not normed:
        return wide
    rows = builder.step.tokens * widths.heads
    squares = tape.run("mul", (wide,), size, "fp32", saves=(wide,), backward_temp=wide.bytes)
    scales = tape.run("rsqrt", (squares,), rows, "fp32", saves_output=True)
    return tape.run("mul", (wide, scales), size, "fp32", saves=(wide, scales), backward_temp=wide.bytes)


def _scanned(
    builder: Builder, query: Value, key: Value, own: Value, decay: Value, beta: Value, widths: Widths
) -> Value:
    """The scan in float32: within chunks at once, then chunk by chunk (`torch_chunk_gated_delta_rule`)."""
    tape = builder.tape
    rows, heads = widths.rows, widths.heads
    keyed, carried, single = rows * heads * widths.key, rows * heads * widths.value, rows * heads
    query, key = (prepared(builder, one, heads, widths, True) for one in (query, key))
    query, key = (tape.run("pad", (one,), keyed, "fp32") for one in (tape.scale(query), key))
    own = tape.run("pad", (tape.cast(own, "fp32"),), carried, "fp32")
    beta = tape.run("pad", (tape.cast(beta, "fp32"),), single, "fp32")
    decay = tape.run("cumsum", (tape.run("pad", (decay,), single, "fp32"),), single, "fp32")
    paced, keys = tape.multiply(own, beta), tape.multiply(key, beta)
    pairs = rows * heads * CHUNK
    between = tape.run("sub", (decay,), pairs, "fp32", kept_bytes=CHUNK * CHUNK)
    between = tape.run("exp", (between,), pairs, "fp32", saves_output=True)
    system = tape.multiply(_product(builder, keys, key, pairs), between)
    within = tape.multiply(_product(builder, query, key, pairs), between)
    rising = tape.run("exp", (decay,), single, "fp32", saves_output=True)
    values = tape.run("solve", (system, paced), carried, "fp32", saves=(system,), saves_output=True)
    decayed = tape.run(
        "solve", (system, tape.multiply(keys, rising)), keyed, "fp32", saves=(system,), saves_output=True
    )
    again = tape.run("exp", (decay,), single, "fp32", saves_output=True)
    query = tape.multiply(query, again)
    left = tape.run("exp", (decay,), single, "fp32", saves_output=True)
    key = tape.multiply(key, left)
    saves, kept = _kept_by_chunks(builder, (decayed, query, within, key), widths)
    output = tape.run(
        "chunks", (values, decayed, query, within, key), carried, "fp32", saves=saves, kept_bytes=kept,
        backward_temp=4 * max(keyed, carried),
    )  # fmt: skip
    return tape.run("cut", (output,), builder.step.tokens * heads * widths.value, builder.step.compute)


def _kept_by_chunks(
    builder: Builder, factors: tuple[Value, ...], widths: Widths
) -> tuple[tuple[Value, ...], int]:
    """What products of chunks keep: views of their factors, new values, the state before each and the decay over it.

    Autocast casts each chunk's factors apart, new values and states twice, as two products take them.
    """
    narrow = builder.step.width if builder.step.autocast else 0
    carried = widths.rows * widths.heads * widths.value
    states = 4 * widths.chunks * (widths.state + widths.batch * widths.heads)
    if not narrow:
        return factors, states + 4 * carried
    decayed, query, within, key = (factor.elements for factor in factors)
    # The first state has no gradient, and the last chunk makes none.
    most = widths.chunks - 1
    sums = (decayed + query + key + carried) * most // widths.chunks + within + carried
    return (), states - 4 * widths.state + narrow * (sums + 2 * widths.chunks * widths.state)


def _product(builder: Builder, one: Value, other: Value, elements: int) -> Value:
    if builder.step.autocast:
        one, other = (builder.tape.cast(value, builder.step.compute) for value in (one, other))
    return builder.tape.run("bmm", (one, other), elements, one.dtype, saves=(one, other))


def _fused(builder: Builder, inputs: tuple[Value, Value, Value, Value, Value], widths: Widths) -> Value:
    """`chunk_gated_delta_rule`: it keeps its inputs, normed, the inverse within chunks, and makes states anew.

    `fla/ops/gated_delta_rule/chunk.py: ChunkGatedDeltaRuleFunction`: queries and keys with a float32 statistic a row
    and head, values, summed decays, rates, and a matrix of a chunk's width for each row and head.
    """
    tape, step = builder.tape, builder.step
    query, key, own, _, beta = inputs
    width = DTYPE_BYTES[step.compute]
    single = step.tokens * widths.heads
    inverse = width * single * CHUNK
    statistics = 2 * 4 * step.tokens * widths.key_heads
    states = width * widths.state * widths.chunks
    kept = query.bytes + key.bytes + statistics + 4 * single + inverse
    made = width * single * (widths.key + widths.value)
    return tape.run(
        "delta", inputs, own.elements, step.compute, saves=(own, beta), kept_bytes=kept,
        forward_temp=made + states, backward_temp=2 * (made + states) + width * single * CHUNK,
    )  # fmt: skip


def normed_behind_gate(builder: Builder, value: Value, gate: Value, norm: Tensor, rows: int) -> Value:
    """An RMS norm of each head times a bent gate, which is float32 (`Qwen3NextRMSNormGated`)."""
    tape, dtype = builder.tape, value.dtype
    if "fla" in builder.step.kernels:
        weight = builder.stored(norm).weight
        return tape.run(
            "norm behind gate", (value, gate), value.elements, dtype, saves=(value, gate), kept_bytes=4 * rows,
            weights=(weight,),
        )  # fmt: skip
    done = builder.norm(value, norm, builder.manner.gated_norm, rows=rows, fixed=True)
    bent = builder.activation(tape.cast(gate, "fp32"), "silu")
    return tape.cast(tape.multiply(done, bent), dtype)
