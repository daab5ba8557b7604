"""LitGPT's last norm, head and loss, and the logits that its loops hold.

Fabric converts what the model gives to float32 (`lightning/fabric/wrappers.py: _FabricModule.forward`,
`plugins/precision/half.py: convert_output`). The loop's variable holds these logits until the next forward pass has
given others (`litgpt/finetune/lora.py: fit`).
"""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.head import output_projection
from willfit.training.modelling.litgpt.code import CHUNK, Code
from willfit.training.modelling.litgpt.linear import scaled, with_low_rank
from willfit.training.modelling.litgpt.norms import normed
from willfit.training.modelling.quantized import expansion
from willfit.training.modelling.roles import norms_of
from willfit.training.tape import Value, Weight


def held_bytes(builder: Builder, architecture: Architecture, code: Code) -> int:
    """Bytes of float32 logits that are held from the loss to the end of the next forward pass."""
    if code.whole_loss:
        return 0
    return 4 * builder.step.tokens * architecture.vocab_size


def head(
    builder: Builder, value: Value, architecture: Architecture, code: Code, chunked: bool, lingering: int = 0
) -> Value:
    """Final norm, head and loss.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The residual stream behind the last layer.
    architecture, code
        The model, and the version's code.
    chunked
        The head runs on chunks of positions; else on all, and the loss alone on chunks of rows.
    lingering
        Bytes of other pieces that go with the graph, which the held logits keep alive.
    """
    tape = builder.tape
    norm = norms_of([tensor for tensor in architecture.head if tensor.kind == "norm"])[-1]
    offset = architecture.traits.norm == "rms_offset"
    before = None
    if not code.longest_first and not code.whole_loss:
        size = held_bytes(builder, architecture, code) + lingering
        before = tape.run("graph of the last pass", (), size, "uint8")
    tape.module = "norm"
    value = normed(builder, value, norm, code, offset)
    tape.module = "logits"
    logits = _projected(builder, value, architecture, code, chunked)
    if architecture.traits.final_softcap:
        bent = tape.run("tanh", (tape.scale(logits),), logits.elements, logits.dtype, saves_output=True)
        logits = tape.scale(bent)
    wide = tape.cast(logits, "fp32")
    if before is not None:
        tape.hold(before)
    tape.module = "loss"
    loss = _chunked(builder, wide, architecture) if chunked else _rows(builder, wide, architecture, code)
    if not code.whole_loss:
        tape.hold(wide)
    return loss


def _projected(
    builder: Builder, value: Value, architecture: Architecture, code: Code, chunked: bool
) -> Value:
    """Logits in the model's dtype; temporaries are a chunk's."""
    tape, step = builder.tape, builder.step
    tensor = output_projection(architecture)
    if not chunked:
        return with_low_rank(builder, value, tensor)
    stored = builder.stored(tensor)
    size, width = step.tokens * architecture.vocab_size, value.bytes // value.elements
    rows = min(CHUNK, step.length) * step.batch
    part = rows * architecture.vocab_size * width
    forward = expansion(step, stored.expanded, part)
    backward = expansion(step, stored.expanded, rows * value.bytes // step.tokens)
    keeps = bool(stored.expanded) and step.keeps_quantized_input
    inputs, weights, saves = [value], [stored.weight], [value] if keeps else []
    adapter = stored.adapter
    if adapter is not None:
        low = Weight(adapter.rank * adapter.inputs, adapter.dtype, True)
        dropped = tape.dropout(value, adapter.dropout)
        inner = tape.run(
            "mm", (dropped,), step.tokens * adapter.rank, value.dtype, saves=(dropped,), weights=(low,)
        )
        inputs.append(inner)
        saves.append(inner)
        weights.append(Weight(adapter.rank * adapter.outputs, adapter.dtype, True))
        # What the frozen matrix gives, what the adapter does, and that scaled.
        forward, backward = max(forward, 3 * part), max(backward, part)
    logits = tape.run(
        "head by chunks", inputs, size, value.dtype, saves=saves, weights=weights, forward_temp=forward,
        backward_temp=backward, outlives=keeps,
    )  # fmt: skip
    return scaled(builder, logits, tensor.shape[0]) if code.scales else logits


def _chunked(builder: Builder, logits: Value, architecture: Architecture) -> Value:
    """Cross entropy of each chunk. All of them are differentiated before any is passed on."""
    step = builder.step
    rows = min(CHUNK, step.length) * step.batch
    last = (step.length % CHUNK or CHUNK) * step.batch if step.batch > 1 else 0
    row = 4 * architecture.vocab_size
    return builder.tape.run(
        "cross entropy by chunks", (logits,), 1, "fp32", kept_bytes=logits.bytes, forward_temp=row * last,
        backward_temp=2 * row * rows, reuses=True,
    )  # fmt: skip


def _rows(builder: Builder, logits: Value, architecture: Architecture, code: Code) -> Value:
    """Cross entropy on rows of all sequences, shifted by one unless the targets are."""
    tape, step = builder.tape, builder.step
    row = 4 * architecture.vocab_size
    if not code.pretrains:
        rows = step.batch * (step.length - 1)
        logits = tape.part(logits, rows * architecture.vocab_size)
        if step.batch > 1:
            logits = tape.run("reshape", (logits,), logits.elements, "fp32", passes=True)
    if code.whole_loss:
        logarithms = tape.run("log_softmax", (logits,), logits.elements, "fp32", saves_output=True)
        return tape.run("nll_loss", (logarithms,), 1, "fp32", saves=(logarithms,))
    chunks = tape.part(logits, logits.elements)
    return tape.run(
        "cross entropy by chunks", (chunks,), 1, "fp32", kept_bytes=chunks.bytes,
        backward_temp=2 * row * min(CHUNK, step.tokens), reuses=True,
    )  # fmt: skip
