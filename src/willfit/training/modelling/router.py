"""How tokens choose experts: scores, the best of them, and their weights."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.model import FeedForward, Tensor
from willfit.training.modelling.builder import Builder
from willfit.training.tape import Value


def routed(
    builder: Builder, value: Value, router: Sequence[Tensor], shape: FeedForward, tokens: int
) -> Value:
    """The weights of each token's experts, one for each row that an expert will compute.

    The manner's `router` names what transformers' code does: `softmax` over all experts in float32, then the best
    (`Qwen3MoeTopKRouter`); `sigmoid` instead, where a bias decides which are best, so that weights are gathered
    (`MiniMaxM2TopKRouter`); `_wide` behind either: the product is float32 as well (`DeepseekV3TopkRouter`);
    `best` first, then a softmax over these (`GraniteMoeTopKRouter`), `best_narrow`: in the model's dtype
    (`GptOssTopKRouter`).

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The normed input.
    router
        The router's tensors.
    shape
        Numbers of experts.
    tokens
        Rows of the input.
    """
    tape, manner = builder.tape, builder.manner
    matrix = next(tensor for tensor in router if tensor.kind == "linear")
    rows, scores = tokens * shape.top_k, tokens * shape.experts
    kind = manner.router
    if kind.startswith("best"):
        logits = builder.linear(value, matrix, rows=tokens)
        logits = logits if kind == "best_narrow" else tape.cast(logits, "fp32")
        best = tape.run("topk", (logits,), rows, logits.dtype, kept_bytes=8 * rows)
        return tape.cast(tape.run("softmax", (best,), rows, best.dtype, saves_output=True), value.dtype)
    wide = kind.endswith("_wide")
    logits = _wide_product(builder, value, matrix, scores) if wide else builder.linear(value, matrix, rows=tokens)
    logits = logits if kind == "sigmoid_narrow" else tape.cast(logits, "fp32")
    score = "sigmoid" if kind.startswith("sigmoid") else "softmax"
    shares = tape.run(score, (logits,), scores, logits.dtype, saves_output=True)
    if score == "softmax":
        best = tape.run("topk", (shares,), rows, shares.dtype, kept_bytes=8 * rows)
    else:
        best = tape.run("gather", (shares,), rows, shares.dtype, saves=(shares,), kept_bytes=8 * rows)
    # Divided by their sum, one a token.
    total = tape.run("sum", (best,), tokens, best.dtype)
    best = tape.run("div", (best, total), rows, best.dtype, saves=(best, total))
    return best if manner.wide_routing else tape.cast(best, value.dtype)


def _wide_product(builder: Builder, value: Value, matrix: Tensor, elements: int) -> Value:
    """A product in float32, for which input and weight are copied."""
    tape, weight = builder.tape, builder.stored(matrix).weight
    wide = tape.cast(value, "fp32")
    copied = tape.run("weight to float", (), weight.elements, "fp32", weights=(weight,))
    saves = (*((wide,) if weight.trained else ()), *((copied,) if value.grad else ()))
    return tape.run("mm", (wide, copied), elements, "fp32", saves=saves)
