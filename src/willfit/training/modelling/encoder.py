"""What runs in front of an encoder's layers and behind them, in an encoder-decoder."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.embedding import with_leaf
from willfit.training.modelling.roles import norms_of
from willfit.training.modelling.step import Step
from willfit.training.tape import Value


def encoder_step(step: Step, architecture: Architecture) -> Step:
    """How the encoder runs: on as many positions as it always has, and sees all of, or as the decoder's sequence."""
    length = architecture.encoder_tokens or step.source or step.length
    masked = step.masked and not architecture.encoder_tokens
    return replace(
        step, length=length, keys=length, attends_back=False, sequence_parallel=False, masked=masked
    )


def decoder_step(step: Step, architecture: Architecture) -> Step:
    """How the decoder behind an encoder runs: collators give a mask of the encoder's padding alone.

    transformers `data/data_collator.py: DataCollatorForSeq2Seq`; PEFT masks what a prefix puts in front.
    """
    if not architecture.encoder:
        return step
    padded = encoder_step(step, architecture).masked
    return replace(step, masked=step.prefix_tokens > 0, source_masked=padded)


def encoder_front(builder: Builder, architecture: Architecture, hooked: bool = False) -> Value:
    """Two convolutions over the spectrum, the second of which halves its length, or a look-up of tokens.

    transformers `WhisperEncoder.forward`; the look-up's gradient is that of the shared table. For `hooked` see
    `embedding.py`.
    """
    tape, step = builder.tape, builder.step
    tape.module = "encoder"
    size, dtype = step.tokens * architecture.hidden_size, step.compute
    convolutions = [t for t in architecture.embeddings if t.kind == "conv"]
    if not convolutions:
        weight = builder.stored(architecture.embeddings[0]).weight
        looked = tape.run("embedding", (), size, weight.dtype, weights=(replace(weight, trained=False),))
        looked = replace(looked, grad=hooked or weight.trained)
        found = tape.dropout(looked, architecture.traits.embedding_dropout if step.training else 0.0)
        return with_leaf(tape, found, looked if hooked else None)
    value: Value | None = None
    for index, tensor in enumerate(convolutions):
        weight = builder.stored(tensor).weight
        elements = size * 2 if index + 1 < len(convolutions) else size
        given = (value,) if value is not None else ()
        value = tape.run(
            "conv", given, elements, dtype, saves=given if weight.trained else (), weights=(weight,)
        )
        value = builder.activation(value, architecture.traits.activation)
    assert value is not None
    return value


def encoder_output(builder: Builder, value: Value, architecture: Architecture) -> Value:
    """The encoder's last norm. Every layer of the decoder keeps what it gives."""
    tape = builder.tape
    norms = norms_of([t for t in architecture.shared if t.kind == "norm"])
    for norm in norms[:1]:
        if norm.weight is not None:
            tape.module = "norm"
            value = builder.norm(value, norm.weight, architecture.traits.norm, norm.bias)
    tape.module = "encoder"
    return tape.run("output", (value,), value.elements, value.dtype, saves=(value,), passes=True)
