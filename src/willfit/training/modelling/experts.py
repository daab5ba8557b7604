"""Routed experts: the router, the dispatch of tokens, and the experts' products."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.model import FeedForward, Tensor
from willfit.architectures.traits import Traits
from willfit.training.modelling.builder import Builder, Stored
from willfit.training.tape import Value, Weight

#: int64 and int32 numbers of a routed row that are kept: token, expert, order and its inverse (transformers
#: `integrations/moe.py: grouped_mm_experts_forward`).
_INDEX_BYTES = 32


def experts(
    builder: Builder,
    value: Value,
    router: Sequence[Tensor],
    tensors: Sequence[Tensor],
    shape: FeedForward,
    traits: Traits,
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
    """
    tape, step = builder.tape, builder.step
    tokens = value.elements // _hidden(tensors)
    tape.module = "router"
    weights = _routed(builder, value, router, shape, tokens)
    tape.module = "experts"
    rows = tokens * shape.top_k
    hidden, width = value.elements // tokens, max(1, shape.expert_width // step.expert_tensor_ranks)
    dtype = value.dtype
    chosen = tape.run("select", (value,), rows * hidden, dtype, kept_bytes=rows * _INDEX_BYTES)
    if step.expert_ranks > 1:
        # Rows go to the ranks that hold their experts; as many come back where routing is even.
        chosen = tape.run("dispatch", (chosen,), chosen.elements, dtype)
    inward, outward = _halves(builder, tensors)
    if shape.gated:
        both = _product(builder, chosen, inward, rows * 2 * width)
        gate, up = tape.split(both, (rows * width,) * 2)
        inner = tape.multiply(builder.activation(gate, traits.activation), up)
    else:
        inner = builder.activation(_product(builder, chosen, inward, rows * width), traits.activation)
    given = _product(builder, inner, outward, rows * hidden)
    if step.expert_ranks > 1:
        given = tape.run("combine", (given,), given.elements, dtype)
    weighted = tape.run(
        "weigh", (given, weights), rows * hidden, dtype, saves=(given, weights), backward_temp=given.bytes
    )
    return tape.run("sum", (weighted,), tokens * hidden, dtype, backward_temp=0)


def _hidden(tensors: Sequence[Tensor]) -> int:
    """Width of the residual stream, by what the last matrix gives."""
    outward = next(t for t in reversed(tensors) if t.split is not None and t.split.axis in (1, 2))
    return (
        outward.shape[-2]
        if outward.split and outward.split.axis == len(outward.shape) - 1
        else outward.shape[-1]
    )


def _routed(
    builder: Builder, value: Value, router: Sequence[Tensor], shape: FeedForward, tokens: int
) -> Value:
    """Scores in float32, the best of them, and their weights."""
    tape = builder.tape
    matrix = next(tensor for tensor in router if tensor.kind == "linear")
    logits = builder.linear(value, matrix, rows=tokens)
    shares = tape.run("softmax", (logits,), tokens * shape.experts, "fp32", saves_output=True)
    best = tape.run("topk", (shares,), tokens * shape.top_k, "fp32", kept_bytes=8 * tokens * shape.top_k)
    return tape.cast(best, value.dtype)


def _halves(builder: Builder, tensors: Sequence[Tensor]) -> tuple[Stored, Stored]:
    """All matrices into the experts, and all out of them, as one each."""
    matrices = [tensor for tensor in tensors if tensor.kind == "linear"]
    outward = [t for t in matrices if t.split is not None and t.split.axis == len(t.shape) - 1]
    inward = [t for t in matrices if t not in outward]
    return _joined(builder, inward), _joined(builder, outward)


def _joined(builder: Builder, tensors: Sequence[Tensor]) -> Stored:
    parts = [builder.stored(tensor) for tensor in tensors]
    first = parts[0].weight
    elements = sum(part.weight.elements for part in parts)
    return Stored(
        Weight(elements, first.dtype, first.trained, first.gradient_dtype), sum(p.expanded for p in parts)
    )


def _product(builder: Builder, value: Value, stored: Stored, elements: int) -> Value:
    """A grouped product: autocast leaves it alone, and the input takes the weights' dtype (`_grouped_mm`)."""
    value = builder.tape.cast(value, stored.weight.dtype)
    return builder.tape.run(
        "grouped mm", (value,), elements, value.dtype, saves=(value,) if stored.weight.trained else (),
        weights=(stored.weight,), forward_temp=stored.expanded, backward_temp=stored.expanded,
    )  # fmt: skip
