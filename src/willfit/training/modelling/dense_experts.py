"""Experts that all run on every token, whose inputs are zero where a token did not choose them (Llama 4)."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.model import FeedForward, Tensor
from willfit.architectures.traits import Traits
from willfit.training.modelling.activations import gate_product
from willfit.training.modelling.builder import Builder, Stored
from willfit.training.tape import Value


def dense_experts(
    builder: Builder,
    value: Value,
    router: Sequence[Tensor],
    halves: tuple[Stored, Stored],
    shape: FeedForward,
    traits: Traits,
) -> Value:
    """Repeat all tokens for all experts, weigh, run, and add up (transformers `Llama4TextMoe`).

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The normed input.
    router, halves
        The router's tensors, and all matrices into the experts and out of them.
    shape, traits
        Widths, and the activation.
    """
    tape, step = builder.tape, builder.step
    matrix = next(tensor for tensor in router if tensor.kind == "linear")
    tokens = value.elements // matrix.shape[-1]
    count, dtype = shape.experts, value.dtype
    tape.module = "router"
    logits = builder.linear(value, matrix, rows=tokens)
    best = tape.run("topk", (logits,), tokens * shape.top_k, dtype, kept_bytes=8 * tokens * shape.top_k)
    spread = tape.run("scatter", (best,), tokens * count, dtype)
    scores = tape.run("sigmoid", (tape.cast(spread, "fp32"),), tokens * count, "fp32", saves_output=True)
    scores = tape.copy(tape.cast(scores, dtype))
    tape.module = "experts"
    rows, width = tokens * count, max(1, shape.expert_width // step.expert_tensor_ranks)
    repeated = tape.run("repeat", (value,), value.elements * count, dtype)
    given = tape.run(
        "mul", (repeated, scores), repeated.elements, dtype, saves=(repeated, scores),
        backward_temp=repeated.bytes,
    )  # fmt: skip
    both = _product(builder, given, halves[0], rows * 2 * width)
    gate, up = tape.split(both, (rows * width,) * 2)
    inner = gate_product(builder, gate, up, traits.activation, gate_first=False)
    done = _product(builder, inner, halves[1], rows * (value.elements // tokens))
    return tape.run("sum", (done,), value.elements, dtype, passes=True)


def _product(builder: Builder, value: Value, stored: Stored, elements: int) -> Value:
    return builder.tape.run(
        "bmm", (value,), elements, value.dtype, saves=(value,) if stored.weight.trained else (),
        weights=(stored.weight,), forward_temp=stored.expanded, backward_temp=stored.expanded,
    )  # fmt: skip
