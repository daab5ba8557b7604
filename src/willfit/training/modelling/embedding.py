"""Before the first layer: the token table."""

from __future__ import annotations

from willfit.architectures.model import Architecture, Tensor
from willfit.training.modelling.adapted import adapted
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.roles import norms_of
from willfit.training.tape import Value


def embedding(builder: Builder, architecture: Architecture) -> Value:
    """Look up tokens (and learned positions), perhaps with a norm; the gradient of a table is a dense one.

    Parameters
    ----------
    builder
        Writes the tape.
    architecture
        The model.
    """
    tape, step = builder.tape, builder.step
    tape.module = "embedding"
    tables = [tensor for tensor in architecture.embeddings if tensor.kind == "embedding"]
    size = step.stream_tokens * architecture.hidden_size
    found: Value | None = None
    for tensor in tables:
        looked = _looked_up(builder, tensor, size)
        found = looked if found is None else tape.add(found, looked)
    if found is None:
        found = tape.new(size, step.compute, grad=False)
    if architecture.traits.embedding_multiplier is not None:
        found = tape.scale(found)
    for norm in norms_of([tensor for tensor in architecture.embeddings if tensor.kind == "norm"]):
        if norm.weight is not None:
            found = builder.norm(found, norm.weight, architecture.traits.norm, norm.bias)
    return tape.dropout(found, architecture.traits.embedding_dropout if step.training else 0.0)


def _looked_up(builder: Builder, tensor: Tensor, size: int) -> Value:
    """Rows of a table, and what adapts it."""
    tape, stored = builder.tape, builder.stored(tensor)

    def base(_: Value) -> Value:
        return tape.run("embedding", (), size, stored.weight.dtype, weights=(stored.weight,))

    if stored.forward is None:
        return base(tape.held(0, stored.weight.dtype, grad=False))
    tokens = tape.held(builder.step.stream_tokens, stored.weight.dtype, grad=False)
    return adapted(tape, tokens, base, stored.forward, builder.step.stream_tokens, builder.step.batch)
