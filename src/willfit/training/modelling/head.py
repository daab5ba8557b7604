"""Behind the last layer: final norm, output projection and loss, by the way in which the loss is computed."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.model import Architecture, Tensor
from willfit.quantities import DTYPE_BYTES, ceil_div
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.pooled import pooled_head
from willfit.training.modelling.roles import norms_of
from willfit.training.tape import Tape, Value, Weight


@dataclass(frozen=True, slots=True)
class LossPath:
    """How logits become a loss.

    Attributes
    ----------
    kind
        As in `LossSettings`.
    upcasts
        The model's own code upcasts its logits before the loss sees them.
    compiled
        The loss is compiled by itself, with its upcast.
    narrow
        Nothing upcasts them: their logarithms have their dtype.
    shifts
        Logits are copied one position on, to compare them with labels; later versions move the labels.
    rows
        Rows whose logits are computed.
    vocabulary
        Entries of the vocabulary on this rank.
    chunk_rows
        Rows of a chunk where it goes by chunks.
    keeps_logits
        The caller holds the logits during the backward pass.
    classes
        Outputs of a head that scores whole sequences; 0 where the vocabulary is scored.
    pooled
        There is no head: the loss compares what is pooled of each sequence.
    """

    kind: str
    rows: int
    vocabulary: int
    chunk_rows: int = 0
    upcasts: bool = True
    shifts: bool = False
    keeps_logits: bool = False
    classes: int = 0
    pooled: bool = False
    narrow: bool = False
    compiled: bool = False

    def held_bytes(self, width: int) -> int:
        """Bytes of logits that the caller holds through the backward pass, which needs their logarithms alone.

        Parameters
        ----------
        width
            Bytes of an element as the model computes.
        """
        if not self.keeps_logits or self.compiled or self.kind not in ("hf", "vocab-parallel"):
            return 0
        return self.rows * self.vocabulary * (4 if self.upcasts else width)


def head(builder: Builder, value: Value, architecture: Architecture, path: LossPath) -> Value:
    """Final norm, output projection and loss; gives the loss.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        The residual stream behind the last layer.
    architecture, path
        The model, and how its loss is computed.
    """
    tape = builder.tape
    norms = norms_of([tensor for tensor in architecture.head if tensor.kind == "norm"])
    tape.module = "norm"
    for norm in norms[-1:]:
        if norm.weight is not None:
            value = builder.norm(value, norm.weight, architecture.traits.norm, norm.bias)
    if path.classes or path.pooled:
        tape.module = "scores"
        return pooled_head(builder, value, architecture, path.classes)
    tape.module = "logits"
    projection = output_projection(architecture)
    if path.kind == "chunked":
        return _by_chunks(builder, value, projection, path)
    if path.kind in ("liger", "cut", "chunked-head", "chunked-backward"):
        return _without_logits(builder, value, projection, path)
    logits = builder.linear(value, projection)
    if architecture.traits.final_softcap:
        bent = tape.run("tanh", (tape.scale(logits),), logits.elements, logits.dtype, saves_output=True)
        logits = tape.scale(bent)
    if path.upcasts and not path.compiled:
        logits = tape.cast(logits, "fp32")
    loss = _cross_entropy(tape, logits, path)
    if path.keeps_logits:
        tape.hold(logits)
    return loss


def output_projection(architecture: Architecture) -> Tensor:
    """The matrix that makes logits: a head of its own, or the token table."""
    own = [t for t in architecture.head if t.kind == "linear" and t.shape[0] == architecture.vocab_size]
    tables = [t for t in architecture.embeddings if t.kind == "embedding"]
    return own[0] if own else tables[0]


def _cross_entropy(tape: Tape, logits: Value, path: LossPath) -> Value:
    """Cross entropy on whole logits."""
    size, rows = logits.elements, path.rows
    if path.compiled:
        # Maxima and sums of rows are kept; the rest is made again from the logits (`_functorch/partitioners.py`).
        return tape.run("compiled cross entropy", (logits,), 1, "fp32", saves=(logits,), kept_bytes=8 * rows)
    wide = tape.run("shift", (logits,), size, logits.dtype) if path.shifts else logits
    if path.kind == "fused":
        # One kernel: it keeps the logits with a statistic a row, and writes the gradient over them (Unsloth, Liger).
        return tape.run(
            "fused cross entropy", (wide,), 1, "fp32", saves=(wide,), kept_bytes=8 * rows, reuses=True
        )
    wide = wide if path.narrow else tape.cast(wide, "fp32")
    logarithms = tape.run("log_softmax", (wide,), size, wide.dtype, saves_output=True)
    return tape.run("nll_loss", (logarithms,), 1, "fp32", saves=(logarithms,))


def _by_chunks(builder: Builder, value: Value, projection: Tensor, path: LossPath) -> Value:
    """Logits chunk by chunk, all kept; their float32 copies and gradients exist for one chunk at a time.

    torchtune `modules/transformer.py: chunked_output`. Uncompiled, each chunk's log softmax is kept as well. Compiled,
    nothing of a chunk is made in float32; all chunks have their gradients when the projection's is made, by chunk, and
    added up.
    """
    step = builder.step
    weight = builder.stored(projection).weight
    size, narrow = path.rows * path.vocabulary, DTYPE_BYTES[value.dtype]
    part = ceil_div(size, max(1, ceil_div(path.rows, path.chunk_rows or path.rows)))
    kept = size * (narrow if step.compiled else narrow + 4)
    forward, backward = 4 * part, part * (4 + 4 + narrow)
    if step.compiled:
        forward, backward = 0, max(part * narrow, weight.gradient_bytes)
    return builder.tape.run(
        "loss by chunks", (value,), 1, "fp32", saves=(value,), kept_bytes=kept, forward_temp=forward,
        backward_temp=backward, weights=(weight,),
    )  # fmt: skip


def _without_logits(builder: Builder, value: Value, projection: Tensor, path: LossPath) -> Value:
    """Projection and loss in one, so that logits exist for a chunk of rows at most."""
    tape = builder.tape
    weight = builder.stored(projection).weight
    chunk = min(
        path.chunk_rows or liger_chunk(path.rows, path.vocabulary, value.elements // path.rows), path.rows
    )
    logits = chunk * path.vocabulary
    narrow = DTYPE_BYTES[value.dtype]
    if path.kind == "liger":
        # Gradients of input and weight are made on the way forward (`liger_kernel/ops/fused_linear_cross_entropy.py`).
        made = value.bytes + (weight.gradient_bytes if weight.trained else 0)
        return tape.run(
            "fused linear cross entropy", (value,), 1, "fp32", kept_bytes=made, forward_temp=logits * (narrow + 4),
            reuses=True, weights=(_given(weight),),
        )  # fmt: skip
    if path.kind == "chunked-backward":
        # Every chunk goes back before the next: copies of chunks of the input, their gradients in float32, and of one
        # chunk logits, log softmax and two gradients of these (torchtitan `components/loss.py: ChunkedCELoss`).
        made = value.bytes + (weight.gradient_bytes if weight.trained else 0)
        passing = value.bytes + 4 * value.elements + logits * (narrow + 3 * 4)
        return tape.run(
            "loss by chunks", (value,), 1, "fp32", kept_bytes=made, forward_temp=passing, reuses=True,
            weights=(_given(weight),),
        )  # fmt: skip
    if path.kind == "cut":
        return tape.run(
            "cut cross entropy",
            (value,),
            1,
            "fp32",
            saves=(value,),
            kept_bytes=8 * path.rows,
            weights=(weight,),
        )
    # Each chunk's logits and log softmax stay for its backward pass.
    kept = path.rows * path.vocabulary * 4
    return tape.run(
        "loss by chunks", (value,), 1, "fp32", saves=(value,), kept_bytes=kept, forward_temp=logits * (narrow + 4),
        backward_temp=2 * 4 * logits, weights=(weight,),
    )  # fmt: skip


def liger_chunk(rows: int, vocabulary: int, hidden: int) -> int:
    """Rows whose logits a fused linear cross entropy makes at once: about as many bytes as the input's.

    `liger_kernel/ops/fused_linear_cross_entropy.py: fused_linear_cross_entropy_forward`.
    """
    share = ceil_div(rows, ceil_div(vocabulary, hidden))
    return 1 << (share - 1).bit_length()


def _given(weight: Weight) -> Weight:
    """A weight whose gradient exists already when its operation is visited."""
    return Weight(weight.elements, weight.dtype, False)
