"""Before the first layer: the token table."""

from __future__ import annotations

from willfit.architectures.model import Architecture
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
        weight = builder.stored(tensor).weight
        looked = tape.run("embedding", (), size, weight.dtype, weights=(weight,))
        found = looked if found is None else tape.add(found, looked)
    if found is None:
        found = tape.new(size, step.compute, grad=False)
    if architecture.traits.embedding_multiplier is not None:
        found = tape.scale(found)
    for norm in norms_of([tensor for tensor in architecture.embeddings if tensor.kind == "norm"]):
        if norm.weight is not None:
            found = builder.norm(found, norm.weight, architecture.traits.norm, norm.bias)
    return tape.dropout(found, architecture.traits.embedding_dropout if step.training else 0.0)
