"""How tokens choose experts: scores, the best of them, and their weights."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.model import FeedForward, Tensor
from willfit.architectures.traits import Router, Traits
from willfit.training.modelling.builder import Builder
from willfit.training.tape import Value


def routed(
    builder: Builder,
    value: Value,
    router: Sequence[Tensor],
    shape: FeedForward,
    traits: Traits,
    tokens: int,
) -> Value:
    """The weights of each token's experts, one for each row that an expert will compute.

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
    traits
        How the family routes.
    tokens
        Rows of the input.
    """
    tape, manner, way = builder.tape, builder.manner, traits.router or Router()
    matrix = next(tensor for tensor in router if tensor.kind == "linear")
    rows, scores = tokens * shape.top_k, tokens * shape.experts
    # Autocast takes the product back to its own dtype, but where the code turns it off.
    narrowed = builder.step.autocast and not manner.outside_autocast
    logits = (
        _wide_product(builder, value, matrix, scores)
        if way.float32 and not narrowed
        else builder.linear(value, matrix, rows=tokens)
    )
    narrow = manner.narrow_scores or (narrowed and way.float32 and way.score == "sigmoid")
    if not narrow:
        logits = tape.cast(logits, "fp32")
    if not way.before_top_k:
        best = tape.run("topk", (logits,), rows, logits.dtype, kept_bytes=8 * rows)
        shares = tape.run(way.score, (best,), rows, best.dtype, saves_output=True)
        return shares if manner.wide_weights else tape.cast(shares, value.dtype)
    shares = tape.run(way.score, (logits,), scores, logits.dtype, saves_output=True)
    # A stored correction decides which are best, so that their own scores are gathered; numbers of experts are int64.
    saves = (shares,) if way.corrected else ()
    name = "gather" if way.corrected else "topk"
    best = tape.run(name, (shares,), rows, shares.dtype, saves=saves, kept_bytes=8 * rows)
    if not way.normalised:
        return best if manner.wide_weights else tape.cast(best, value.dtype)
    # Divided by their sum, one a token.
    total = tape.run("sum", (best,), tokens, best.dtype)
    best = tape.run("div", (best, total), rows, best.dtype, saves=(best, total))
    return best if manner.wide_weights else tape.cast(best, value.dtype)


def _wide_product(builder: Builder, value: Value, matrix: Tensor, elements: int) -> Value:
    """A product in float32, for which input and weight are copied."""
    tape, weight = builder.tape, builder.stored(matrix).weight
    wide = tape.cast(value, "fp32")
    copied = tape.run("weight to float", (), weight.elements, "fp32", weights=(weight,))
    keeps_copy = value.grad and not builder.manner.wide_router
    saves = (*((wide,) if weight.trained else ()), *((copied,) if keeps_copy else ()))
    return tape.run("mm", (wide, copied), elements, "fp32", saves=saves)
