"""A model as the pieces of a step: embedding, layers, head and loss, each replayed once for all that are alike."""

from __future__ import annotations

from willfit.architectures.model import Architecture, Layer
from willfit.training.before import encoder_pieces, tower_pieces
from willfit.training.holding import Holding, expert_tensor_ranks
from willfit.training.modelling.altup import streams_of
from willfit.training.modelling.block import block
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.embedding import embedding
from willfit.training.modelling.head import LossPath, head
from willfit.training.modelling.manners import manner_of
from willfit.training.modelling.masks import masked_step
from willfit.training.modelling.step import Step
from willfit.training.objectives import scores, sequences
from willfit.training.run import Run
from willfit.training.selective import SELECTIONS
from willfit.training.sharding.base import Unit
from willfit.training.tape import Replay, replay
from willfit.training.tape.replay import Selection
from willfit.training.timeline import Piece


def step_of(run: Run, compute_capability: str) -> Step:
    """How a micro-batch runs on a rank."""
    settings = run.settings
    layout = settings.layout
    length = settings.seq_len or 0
    batch = settings.micro_batch * sequences(settings.objective)
    if settings.padding_free:
        batch, length = 1, batch * length
    own = length // (layout.cp * layout.ulysses)
    return Step(
        batch=batch,
        length=own,
        keys=length if layout.ulysses > 1 else own * layout.cp,
        compute=settings.precision.compute or settings.precision.weights or "bf16",
        autocast=bool(settings.precision.autocast),
        attention=settings.attention or "sdpa",
        kernels=frozenset(settings.kernels),
        masked=bool(settings.padded),
        repeats_keys=run.habits.repeats_keys,
        tensor_ranks=layout.tp,
        sequence_parallel=layout.sp,
        compute_capability=compute_capability,
        expert_ranks=layout.ep,
        expert_tensor_ranks=expert_tensor_ranks(layout),
        grouped_experts=run.habits.grouped_experts,
    )


def pieces_of(run: Run, holding: Holding, step: Step, layers: range) -> list[Piece]:
    """The pieces of a pipeline stage, in the order of the forward pass; of the whole model, if that is one stage.

    Parameters
    ----------
    run, holding, step
        The run, how it holds the model, and how a micro-batch runs.
    layers
        Which layers the stage has.
    """
    architecture, settings = holding.architecture, run.settings
    checkpointing = settings.checkpointing
    added = settings.gradient_accumulation > 1 or run.habits.gradient_buffers
    temporary = added or (settings.layout.data or "").startswith("zero")
    found: list[Piece] = []
    dtype, entering = step.compute if not step.autocast else "fp32", True
    selects = SELECTIONS.get(checkpointing.kind or "none")
    if layers.start == 0:
        seen = tower_pieces(holding, step, checkpointing, temporary)
        piece, dtype, trained = _bottom(holding, step, temporary)
        found += [*seen, piece, *encoder_pieces(holding, step, checkpointing, temporary)]
        entering = trained or any(piece.replay.gradients for piece in seen)
        entering = entering or (settings.adapter is not None and checkpointing.kind not in (None, "none"))
    known: dict[tuple[int, bool], tuple[Replay, Unit]] = {}
    for index in layers:
        layer = architecture.layers[index]
        key = id(layer), entering
        if key not in known:
            ran, dtype = _layer(holding, step, layer, dtype, entering, temporary, selects)
            known[key] = ran, holding.unit(layer.tensors)
        chosen = checkpointing.kind not in (None, "none") and index % checkpointing.every == 0
        chosen = chosen and (checkpointing.layers is None or index < checkpointing.layers)
        selective = chosen and checkpointing.kind in SELECTIONS
        found.append(Piece(f"layer {index}", *known[key], chosen, selective, checkpointing.offload))
        entering = True
    if layers.stop == len(architecture.layers):
        top = _top(run, holding, step, architecture, dtype, temporary)
        found.append(Piece("head and loss", top, holding.unit(architecture.head)))
    return found


def _bottom(holding: Holding, step: Step, temporary: bool) -> tuple[Piece, str, bool]:
    """The embedding, the dtype of what it gives, and whether that needs a gradient."""
    architecture = holding.architecture
    builder = Builder(step, holding.stored, manner_of(architecture))
    given = builder.entering(0, step.compute, grad=False)
    stream = embedding(builder, architecture)
    ran = replay(builder.tape, given, stream, temporary)
    unit = holding.unit((*architecture.embeddings, *architecture.shared))
    return Piece("embedding", ran, unit), stream.dtype, stream.grad


def _layer(
    holding: Holding,
    step: Step,
    layer: Layer,
    dtype: str,
    entering: bool,
    accumulates: bool,
    selects: Selection | None,
) -> tuple[Replay, str]:
    architecture = holding.architecture
    manner = manner_of(architecture)
    builder = Builder(masked_step(step, layer, manner), holding.stored, manner)
    size = step.stream_tokens * architecture.hidden_size * streams_of(layer)
    given = builder.entering(size, dtype, entering)
    result = block(builder, given, layer, architecture.traits)
    return replay(builder.tape, given, result, accumulates, selects), result.dtype


def _top(
    run: Run, holding: Holding, step: Step, architecture: Architecture, dtype: str, accumulates: bool
) -> Replay:
    builder = Builder(step, holding.stored, manner_of(architecture))
    given = builder.entering(step.tokens * architecture.hidden_size, dtype)
    result = head(builder, given, architecture, _loss_path(run, step, architecture))
    return replay(builder.tape, given, result, accumulates)


def _loss_path(run: Run, step: Step, architecture: Architecture) -> LossPath:
    loss = run.settings.loss
    rows = step.tokens
    chunk = loss.chunk_tokens or (-(-rows // loss.chunks) if loss.chunks else 0)
    split = loss.kind == "vocab-parallel"
    vocabulary = architecture.vocab_size // (step.tensor_ranks if split else 1)
    return LossPath(
        loss.kind or "hf",
        rows,
        vocabulary,
        chunk,
        run.habits.upcasts_logits,
        run.habits.shifts_logits and step.batch > 1,
        loss.keeps_logits,
        scores(run.settings),
        run.settings.objective == "embedding",
    )
