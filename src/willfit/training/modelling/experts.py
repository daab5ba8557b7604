"""Routed experts: the dispatch of tokens, and the experts' products."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.model import FeedForward, Tensor
from willfit.architectures.traits import Traits
from willfit.quantities import DTYPE_BYTES
from willfit.training.modelling.activations import gate_product
from willfit.training.modelling.adapted import remade
from willfit.training.modelling.builder import Builder, Stored
from willfit.training.modelling.dense_experts import dense_experts
from willfit.training.modelling.router import routed
from willfit.training.tape import Value, Weight
from willfit.training.tape.tape import promoted


def experts(
    builder: Builder,
    value: Value,
    router: Sequence[Tensor],
    tensors: Sequence[Tensor],
    shape: FeedForward,
    traits: Traits,
    seen: Value | None = None,
) -> Value:
    """Route tokens, run the experts on them, and add up their weighted outputs.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The normed input.
    router, tensors
        The router's and the experts' tensors.
    shape, traits
        Widths, and the activation.
    seen
        What the router looks at, if that is another value.
    """
    tape, step = builder.tape, builder.step
    looking = value if seen is None else seen
    tokens = looking.elements // next(tensor for tensor in router if tensor.kind == "linear").shape[-1]
    hidden = value.elements // tokens
    if builder.manner.dense_experts:
        return dense_experts(builder, value, router, _halves(builder, tensors), shape, traits)
    tape.module = "router"
    weights = routed(builder, looking, router, shape, traits, tokens)
    tape.module = "experts"
    inward, outward = _halves(builder, tensors)
    biased = any(tensor.kind == "bias" for tensor in tensors)
    if not step.grouped_experts:
        return _loop(builder, value, weights, (inward, outward), shape, traits, tokens)
    rows = tokens * shape.top_k
    # Each row's token, its place in the order of the experts, and back: int64 each; where the rows of an expert end:
    # int32 for each expert (transformers 5.23 `integrations/moe.py: grouped_mm_experts_forward`).
    chosen = tape.run("select", (value,), rows * hidden, value.dtype, kept_bytes=8 * rows + 4 * shape.experts)
    weights = tape.run("select weights", (weights,), rows, weights.dtype, kept_bytes=8 * rows)
    # Ranks that divide an expert's matrices put their shares of the sequence together.
    shares = step.expert_tensor_ranks if step.sequence_parallel else 1
    if step.expert_ranks > 1 or shares > 1:
        # Rows go to the ranks that hold their experts; as many come back where routing is even.
        chosen = tape.run("dispatch", (chosen,), chosen.elements * shares, value.dtype)
    given = _expert(builder, chosen, inward, outward, shape, traits, rows * shares, biased)
    if step.expert_ranks > 1 or shares > 1:
        given = tape.run("combine", (given,), given.elements // shares, value.dtype)
    weighted = _weighed(builder, given, weights)
    ordered = tape.run("restore order", (weighted,), given.elements, weighted.dtype, kept_bytes=8 * rows)
    return tape.cast(tape.run("sum", (ordered,), tokens * hidden, ordered.dtype, passes=True), value.dtype)


def _expert(
    builder: Builder,
    chosen: Value,
    inward: Stored,
    outward: Stored,
    shape: FeedForward,
    traits: Traits,
    rows: int,
    biased: bool = False,
) -> Value:
    """Products of rows with the matrices of their experts."""
    tape = builder.tape
    width = max(1, shape.expert_width // builder.step.expert_tensor_ranks)
    # Biases are gathered for each row by its expert's number, which is kept.
    numbers = 8 * rows if biased else 0
    one, other = _made(builder, inward), _made(builder, outward)
    if shape.gated:
        both = _product(builder, chosen, inward, rows * 2 * width, numbers, one)
        gate, up = tape.split(both, (rows * width,) * 2)
        inner = gate_product(builder, gate, up, traits.activation)
    else:
        inner = builder.activation(_product(builder, chosen, inward, rows * width, 0, one), traits.activation)
    found = _product(builder, inner, outward, rows * (chosen.elements // rows), 0, other)
    # What a parametrization makes is cached until the module returns (torch `nn/utils/parametrize.py: cached`).
    tape.hold(*(made for made in (one, other) if made is not None))
    return found


def _made(builder: Builder, stored: Stored) -> Value | None:
    """The weight of all experts that an adapter makes in place of their own (PEFT `ParamWrapper`)."""
    forward = stored.forward
    return (
        remade(builder.tape, forward, stored.weight.dtype)
        if forward is not None and forward.makes_weight
        else None
    )


def _weighed(builder: Builder, given: Value, weights: Value) -> Value:
    """Outputs times their weights; float32 weights make float32 products."""
    tape = builder.tape
    dtype = promoted(given.dtype, weights.dtype)
    size = given.elements * DTYPE_BYTES[dtype]
    return tape.run(
        "weigh", (given, weights), given.elements, dtype, saves=(given, weights), backward_temp=size
    )


def _loop(
    builder: Builder,
    value: Value,
    weights: Value,
    halves: tuple[Stored, Stored],
    shape: FeedForward,
    traits: Traits,
    tokens: int,
) -> Value:
    """One expert after the other on its own rows, as before transformers 5 (4.x `MixtralSparseMoeBlock`).

    All keep what they need; the last one runs backward first, while what the others keep is still there. Rows are
    spread evenly. A mask of who goes where, an int64 for each token, choice and expert, lives until the block returns.
    """
    tape = builder.tape
    count = max(1, shape.experts // builder.step.expert_ranks)
    hidden, rows = value.elements // tokens, tokens * shape.top_k
    mine = max(1, rows // count)
    mask = tape.new(2 * rows * shape.experts, "fp32", False)
    one = [_part(half, 1, count) for half in halves]
    rest = [_part(half, count - 1, count) for half in halves]
    # Of each row: its token and its choice (int64), its output, that times its weight, and its weight.
    numbers = 16 + 2 * value.bytes // tokens + weights.bytes // weights.elements
    kept = _kept_by_one(builder, one, shape, traits, mine, hidden, value.dtype) + mine * numbers
    before = tape.run(
        "other experts", (value, weights), value.elements, value.dtype, kept_bytes=(count - 1) * kept,
        weights=tuple(half.weight for half in rest), backward_temp=value.bytes,
    )  # fmt: skip
    chosen = tape.run(
        "select", (value,), mine * hidden, value.dtype, kept_bytes=16 * mine, backward_temp=value.bytes
    )
    given = _expert(builder, chosen, one[0], one[1], shape, traits, mine)
    share = tape.run("select weights", (weights,), mine, weights.dtype)
    added = tape.cast(_weighed(builder, given, share), value.dtype)
    # The sum in place keeps what it adds (`IndexAddBackward0`).
    result = tape.run("index_add", (before, added), value.elements, value.dtype, saves=(added,), passes=True)
    tape.hold(mask)
    return result


def _kept_by_one(
    builder: Builder,
    halves: Sequence[Stored],
    shape: FeedForward,
    traits: Traits,
    rows: int,
    hidden: int,
    dtype: str,
) -> int:
    """Bytes that one expert keeps of its rows."""
    alone = Builder(builder.step, builder.stored, builder.manner)
    given = _expert(alone, alone.entering(rows * hidden, dtype), halves[0], halves[1], shape, traits, rows)
    kept = {value.storage for operation in alone.tape.operations for value in operation.saved}
    return sum(alone.tape.sizes[storage] for storage in kept - {given.storage})


def _part(half: Stored, count: int, of: int) -> Stored:
    weight = half.weight
    return Stored(
        Weight(weight.elements * count // of, weight.dtype, weight.trained, weight.gradient_dtype),
        half.expanded // of,
    )


def _halves(builder: Builder, tensors: Sequence[Tensor]) -> tuple[Stored, Stored]:
    """All matrices into the experts, and all out of them, as one each."""
    matrices = [tensor for tensor in tensors if tensor.kind == "linear"]
    outward = [t for t in matrices if t.split is not None and t.split.axis == len(t.shape) - 1]
    # DBRX stores the last one as the others.
    outward = outward or matrices[-1:]
    inward = [t for t in matrices if t not in outward]
    return _joined(builder, inward), _joined(builder, outward)


def _joined(builder: Builder, tensors: Sequence[Tensor]) -> Stored:
    parts = [builder.stored(tensor) for tensor in tensors]
    first = parts[0].weight
    elements = sum(part.weight.elements for part in parts)
    return Stored(
        Weight(elements, first.dtype, first.trained, first.gradient_dtype),
        sum(part.expanded for part in parts),
        forward=parts[0].forward,
    )


def _product(
    builder: Builder,
    value: Value,
    stored: Stored,
    elements: int,
    numbers: int = 0,
    made: Value | None = None,
) -> Value:
    """A grouped product: autocast leaves it alone, and the input takes the weights' dtype (`_grouped_mm`)."""
    value = builder.tape.cast(value, stored.weight.dtype)
    if made is not None:
        saves = (*((value,) if made.grad else ()), *((made,) if value.grad else ()))
        return builder.tape.run(
            "grouped mm", (value, made), elements, value.dtype, saves=saves, kept_bytes=numbers
        )
    if builder.step.low_bits is not None and not stored.expanded:
        return builder.in_low_bits(value, stored.weight, elements)
    return builder.tape.run(
        "grouped mm", (value,), elements, value.dtype, saves=(value,) if stored.weight.trained else (),
        weights=(stored.weight,), forward_temp=stored.expanded, backward_temp=stored.expanded,
        kept_bytes=numbers,
    )  # fmt: skip
