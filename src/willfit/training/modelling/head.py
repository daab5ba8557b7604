"""Behind the last layer: final norm, output projection and loss, by the way in which the loss is computed."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.model import Architecture, Tensor
from willfit.quantities import DTYPE_BYTES, ceil_div
from willfit.training.modelling.adapted import remade
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.liger import chunk_rows, passing_bytes
from willfit.training.modelling.pooled import pooled_head
from willfit.training.modelling.roles import norms_of
from willfit.training.modelling.sequence import gathered
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
    autocast
        The loss runs under autocast.
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
    inside
        The loss is computed in the model's own forward, whose local variables hold what the head was given until it
        returns.
    classes
        Outputs of a head that scores whole sequences; 0 where the vocabulary is scored.
    pooled
        There is no head: the loss compares what is pooled of each sequence.
    upcasts_first, liger
        See `Habits.loss_upcasts` and `Habits.liger`.
    """

    kind: str
    rows: int
    vocabulary: int
    chunk_rows: int = 0
    upcasts: bool = True
    shifts: bool = False
    keeps_logits: bool = False
    inside: bool = False
    classes: int = 0
    pooled: bool = False
    narrow: bool = False
    autocast: bool = False
    compiled: bool = False
    upcasts_first: bool = False
    liger: tuple[int, ...] = ()

    def returned_bytes(self, width: int) -> int:
        """Bytes of logits as they are and in float32, which a caller is given once autocast has ended.

        accelerate `utils/operations.py: ConvertOutputsToFp32`. For `width` see `held_bytes`.
        """
        narrow = self.autocast and self.inside and not self.upcasts
        if not narrow or self.compiled or self.kind not in ("hf", "fused"):
            return 0
        # A fused loss that is given the logits as they are keeps them for its derivative already.
        kept = self.kind == "fused" and not (self.upcasts_first or self.shifts)
        return self.rows * (self.classes or self.vocabulary) * (4 + (0 if kept else width))

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
        The residual stream behind the last layer; this rank's tokens of it with sequence parallelism.
    architecture, path
        The model, and how its loss is computed.
    """
    tape = builder.tape
    norms = norms_of([tensor for tensor in architecture.head if tensor.kind == "norm"])
    if not (path.classes or path.pooled):
        value = _transformed(builder, value, architecture)
    tape.module = "norm"
    for norm in norms[-1:]:
        if norm.weight is not None:
            value = builder.norm(value, norm.weight, architecture.traits.norm, norm.bias)
    value = gathered(builder, value)
    if path.classes or path.pooled:
        tape.module = "scores"
        return pooled_head(builder, value, architecture, path.classes)
    tape.module = "logits"
    loss = _loss(builder, value, output_projection(architecture), architecture, path)
    if path.inside:
        tape.hold(value)
    return loss


def _transformed(builder: Builder, value: Value, architecture: Architecture) -> Value:
    """What encoders put before the norm and the projection: a dense layer, bent (`BertPredictionHeadTransform`)."""
    hidden = architecture.hidden_size
    found = [t for t in architecture.head if t.kind == "linear" and t.shape == (hidden, hidden)]
    if architecture.causal or not found or hidden == architecture.vocab_size:
        return value
    builder.tape.module = "logits"
    biases = {t.name.removesuffix(".bias"): t for t in architecture.head if t.kind == "bias"}
    dense = found[0]
    value = builder.linear(value, dense, biases.get(dense.name.removesuffix(".weight")))
    return builder.activation(value, architecture.traits.activation)


def _loss(
    builder: Builder, value: Value, projection: Tensor, architecture: Architecture, path: LossPath
) -> Value:
    """From the normed stream to the loss."""
    tape = builder.tape
    if path.kind == "chunked":
        return _by_chunks(builder, value, projection, path)
    if path.kind in ("liger", "cut", "chunked-head", "chunked-backward"):
        return _without_logits(builder, value, projection, path)
    logits = _projected(builder, value, projection)
    if architecture.traits.final_softcap:
        bent = tape.run("tanh", (tape.scale(logits),), logits.elements, logits.dtype, saves_output=True)
        logits = tape.scale(bent)
    if path.upcasts and not path.compiled:
        logits = tape.cast(logits, "fp32")
    loss = (
        _divided_cross_entropy(tape, logits, path)
        if path.kind == "vocab-parallel"
        else _cross_entropy(tape, logits, path)
    )
    if path.keeps_logits:
        tape.hold(logits)
    return loss


def _projected(builder: Builder, value: Value, projection: Tensor) -> Value:
    """Logits; a table that the head shares with the embedding has no adapter here, but for rows put into a copy."""
    stored = builder.stored(projection)
    if projection.kind != "embedding" or stored.forward is None:
        return builder.linear(value, projection)
    size = builder.step.tokens * (stored.weight.elements * builder.step.tokens // value.elements)
    if stored.forward.runs_base:
        return builder.product(value, stored, size)
    weight = remade(builder.tape, stored.forward, stored.weight.dtype)
    return builder.tape.run("mm", (value, weight), size, value.dtype, saves=(value, weight))


def output_projection(architecture: Architecture) -> Tensor:
    """The matrix that makes logits: a head of its own, or the token table."""
    own = [t for t in architecture.head if t.kind == "linear" and t.shape[0] == architecture.vocab_size]
    tables = [t for t in architecture.embeddings if t.kind == "embedding"]
    return own[0] if own else tables[0]


def _cross_entropy(tape: Tape, logits: Value, path: LossPath) -> Value:
    """Cross entropy on whole logits, which the caller holds until it has the loss."""
    size, rows = logits.elements, path.rows
    if path.compiled:
        # Maxima and sums of rows are kept; the rest is made again from the logits (`_functorch/partitioners.py`).
        return tape.run("compiled cross entropy", (logits,), 1, "fp32", saves=(logits,), kept_bytes=8 * rows)
    given = wide = logits
    if path.shifts:
        wide = tape.run("shift", (wide,), size, wide.dtype)
    if path.kind == "fused":
        # One kernel: it keeps the logits with a statistic a row, and writes the gradient over them (Unsloth, Liger).
        # transformers' function upcasts them before whatever computes the loss.
        wide = tape.cast(wide, "fp32") if path.upcasts_first else wide
        loss = tape.run(
            "fused cross entropy", (wide,), 1, "fp32", saves=(wide,), kept_bytes=8 * rows, reuses=True
        )
        tape.hold(given)
        return loss
    wide = wide if path.narrow else tape.cast(wide, "fp32")
    logarithms = tape.run("log_softmax", (wide,), size, wide.dtype, saves_output=True)
    if path.narrow and path.autocast:
        # The dtype is asked for by name, which autocast respects; what compares with labels is upcast
        # (`aten/src/ATen/native/LossNLL.cpp: cross_entropy_loss`, `autocast_mode.h`: fp32 and fp32_set_opt_dtype).
        logarithms = tape.cast(logarithms, "fp32")
    loss = tape.run("nll_loss", (logarithms,), 1, "fp32", saves=(logarithms,))
    tape.hold(given, wide)
    return loss


def _divided_cross_entropy(tape: Tape, logits: Value, path: LossPath) -> Value:
    """Cross entropy on a rank's part of the vocabulary, which works in one float32 tensor from logits to gradient.

    Megatron-LM `core/tensor_parallel/cross_entropy.py: _VocabParallelCrossEntropy`: beside exponentials, a mask and an
    index of 8 bytes a row are kept. Autograd casts the gradient to the dtype of the logits.
    """
    narrow = logits.dtype != "fp32"
    kept = 4 * logits.elements if narrow else 0
    return tape.run(
        "vocab-parallel cross entropy", (logits,), 1, "fp32", saves=() if narrow else (logits,),
        kept_bytes=kept + 9 * path.rows, reuses=not narrow,
    )  # fmt: skip


def _by_chunks(builder: Builder, value: Value, projection: Tensor, path: LossPath) -> Value:
    """Logits chunk by chunk, all kept; their float32 copies and gradients exist for one chunk at a time.

    torchtune `modules/transformer.py: chunked_output`, `modules/loss/ce_chunked_output_loss.py`. Each chunk's log
    softmax is kept in float32, and the logits go once the loss is there. Compiled, nothing of a chunk is made in
    float32; all chunks have their gradients when the projection's is made, by chunk, and added up.
    """
    step = builder.step
    weight = builder.stored(projection).weight
    size, narrow = path.rows * path.vocabulary, DTYPE_BYTES[value.dtype]
    part = ceil_div(size, max(1, ceil_div(path.rows, path.chunk_rows or path.rows)))
    forward, backward = size * narrow + 4 * part, part * 8
    if step.compiled:
        forward, backward = 0, max(part * narrow, weight.gradient_bytes)
    return builder.tape.run(
        "loss by chunks", (value,), 1, "fp32", saves=(value,), kept_bytes=size * (narrow if step.compiled else 4),
        forward_temp=forward, backward_temp=backward, weights=(weight,),
    )  # fmt: skip


def _without_logits(builder: Builder, value: Value, projection: Tensor, path: LossPath) -> Value:
    """Projection and loss in one, so that logits exist for a chunk of rows at most."""
    tape = builder.tape
    weight = builder.stored(projection).weight
    chunk = min(
        path.chunk_rows or chunk_rows(path.rows, path.vocabulary, value.elements // path.rows), path.rows
    )
    logits = chunk * path.vocabulary
    narrow = DTYPE_BYTES[value.dtype]
    if path.kind == "liger":
        made = value.bytes + (weight.gradient_bytes if weight.trained else 0)
        passing = passing_bytes(builder.step, value, weight, path.rows, path.vocabulary, chunk, path.liger)
        return tape.run(
            "fused linear cross entropy", (value,), 1, "fp32", kept_bytes=made, forward_temp=passing,
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


def _given(weight: Weight) -> Weight:
    """A weight whose gradient exists already when its operation is visited."""
    return Weight(weight.elements, weight.dtype, False)
