"""Heads that score, or embed, whole sequences: no vocabulary, and no logits of every token."""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.training.modelling.builder import Builder, Stored
from willfit.training.tape import Value, Weight


def pooled_head(builder: Builder, value: Value, architecture: Architecture, classes: int) -> Value:
    """Scores of sequences, or sequences as vectors; gives the loss.

    Decoders score every token and take the last one's (`GenericForSequenceClassification.forward`); encoders pool
    first: the first token goes through a dense layer and a tanh (`BertPooler`), then dropout and the classifier.
    Embeddings are means over tokens, or one token's.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        Behind the final norm.
    architecture
        The model.
    classes
        Outputs of the classifier; 0 for an embedding.
    """
    tape, step, hidden = builder.tape, builder.step, architecture.hidden_size
    dtype = value.dtype
    rows = step.tokens
    if not classes:
        vectors = tape.run("pool", (value,), step.batch * hidden, dtype, backward_temp=value.bytes)
        return tape.run("loss", (vectors,), 1, "fp32", saves=(vectors,))
    if not architecture.causal:
        rows = step.batch
        value = tape.part(value, rows * hidden)
        dense = Stored(Weight(hidden * hidden, dtype, True))
        value = builder.product(value, dense, rows * hidden)
        value = tape.run("tanh", (value,), rows * hidden, value.dtype, saves_output=True)
        value = tape.dropout(value, architecture.traits.hidden_dropout if step.training else 0.0)
    scores = builder.product(value, Stored(Weight(hidden * classes, dtype, True)), rows * classes)
    chosen = tape.part(scores, step.batch * classes)
    return tape.run("loss", (tape.cast(chosen, "fp32"),), 1, "fp32", saves_output=True)
