"""Before the first layer: the token table."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture, Tensor
from willfit.quantities import DTYPE_BYTES
from willfit.training.modelling.adapted import adapted
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.roles import norms_of
from willfit.training.tape import Tape, Value


def embedding(builder: Builder, architecture: Architecture, hooked: bool = False) -> Value:
    """Look up tokens (and learned positions), perhaps with a norm; the gradient of a table is a dense one.

    Parameters
    ----------
    builder
        Writes the tape.
    architecture
        The model.
    hooked
        A hook makes what is looked up of tokens need a gradient (transformers `enable_input_require_grads`).
    """
    tape, step = builder.tape, builder.step
    tape.module = "embedding"
    hidden = architecture.hidden_size
    size = step.stream_tokens * hidden
    tables = [one for one in architecture.embeddings if one.kind in ("embedding", "other")]
    found = leaf = None
    for tensor in tables:
        if tensor.kind == "embedding":
            looked = _looked_up(builder, tensor, size)
        elif tensor.shape[-1] != hidden or len(tensor.shape) != 2:
            continue
        else:
            # Positions are those of one sequence; what kind a token is of is asked of each (`BertEmbeddings.forward`).
            rows = step.stream_tokens if "type" in tensor.name else step.stream_tokens // step.batch
            looked = _looked_up(builder, tensor, rows * hidden)
        if hooked and leaf is None:
            leaf = looked = replace(looked, grad=True)
        found = looked if found is None else tape.add(found, looked)
    if found is None:
        found = tape.new(size, step.compute, grad=False)
    if architecture.traits.embedding_multiplier is not None:
        found = tape.scale(found)
    for norm in norms_of([tensor for tensor in architecture.embeddings if tensor.kind == "norm"]):
        if norm.weight is not None:
            found = builder.norm(found, norm.weight, architecture.traits.norm, norm.bias)
    found = tape.dropout(found, architecture.traits.embedding_dropout if step.training else 0.0)
    return with_leaf(tape, found, leaf)


def kept_beside(tape: Tape, size: int, dtype: str) -> None:
    """Keep something that layers are given beside the stream until the backward pass is over."""
    if size:
        held = tape.new(size // DTYPE_BYTES[dtype], dtype, True)
        tape.run("arguments", (held,), 0, dtype, saves=(held,))


def with_leaf(tape: Tape, value: Value, leaf: Value | None) -> Value:
    """Keep a value that a hook made a leaf of the graph, whose node that adds up its gradient holds it."""
    if leaf is not None and leaf.storage != value.storage:
        tape.run("leaf", (leaf,), 0, leaf.dtype, saves=(leaf,))
    return value


def _looked_up(builder: Builder, tensor: Tensor, size: int) -> Value:
    """Rows of a table, and what adapts it."""
    tape, stored = builder.tape, builder.stored(tensor)

    def base(_: Value, _made: Value | None = None) -> Value:
        return tape.run("embedding", (), size, stored.weight.dtype, weights=(stored.weight,))

    if stored.forward is None:
        return base(tape.held(0, stored.weight.dtype, grad=False))
    tokens = tape.held(builder.step.stream_tokens, stored.weight.dtype, grad=False)
    return adapted(tape, tokens, base, stored.forward, builder.step.stream_tokens, builder.step.batch)
