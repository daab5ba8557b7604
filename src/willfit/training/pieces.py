"""A model as the pieces of a step: embedding, layers, head and loss, each replayed once for all that are alike."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from willfit.architectures.model import Architecture, Layer
from willfit.engines.versions import parse_version
from willfit.quantities import DTYPE_BYTES
from willfit.training.before import encoder_pieces, tower_pieces
from willfit.training.fused import compiled_bytes, read_of
from willfit.training.holding import Holding, expert_tensor_ranks
from willfit.training.modelling.altup import streams_of
from willfit.training.modelling.block import block
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.embedding import embedding, kept_beside
from willfit.training.modelling.encoder import decoder_step
from willfit.training.modelling.head import LossPath, head, output_projection
from willfit.training.modelling.litgpt import Code
from willfit.training.modelling.litgpt import block as litgpt_block
from willfit.training.modelling.litgpt import head as litgpt_head
from willfit.training.modelling.litgpt.code import PROMPT_FROM
from willfit.training.modelling.litgpt.head import held_bytes
from willfit.training.modelling.low_bits import low_bits
from willfit.training.modelling.manners import manner_of
from willfit.training.modelling.masks import arguments_bytes, masked_step
from willfit.training.modelling.step import Step
from willfit.training.objectives import scores, sequences
from willfit.training.run import Run
from willfit.training.selective import selection_of
from willfit.training.settings import TrainingSettings
from willfit.training.sharding.base import Unit, joined
from willfit.training.sharding.fsdp import adds_in_place
from willfit.training.tape import Replay, replay
from willfit.training.tape.replay import Selection
from willfit.training.timeline import Piece
from willfit.training.whole_vocabulary import GatheringBuilder, with_whole_gradients

#: Compute capabilities of Blackwell's data-centre cards.
_BLACKWELL = "10."


def step_of(run: Run, compute_capability: str, virtual_tokens: int = 0, prefix_tokens: int = 0) -> Step:
    """How a micro-batch runs on a rank, with tokens that an adapter puts in front of sequences, or of keys alone."""
    settings = run.settings
    layout = settings.layout
    length = (settings.seq_len or 0) + virtual_tokens
    batch = settings.micro_batch * sequences(settings.objective)
    if settings.padding_free:
        batch, length = 1, batch * length
    own = length // (layout.cp * layout.ulysses)
    attention = settings.attention or "sdpa"
    if attention == "sdpa" and run.habits.cudnn_unkept and compute_capability.startswith(_BLACKWELL):
        attention = "cudnn"
    return Step(
        batch=batch,
        length=own,
        keys=(length if layout.ulysses > 1 else own * layout.cp) + prefix_tokens,
        prefix_tokens=prefix_tokens,
        compute=settings.precision.compute or settings.precision.weights or "bf16",
        autocast=bool(settings.precision.autocast),
        attention=attention,
        kernels=frozenset(settings.kernels),
        masked=bool(settings.padded) or prefix_tokens > 0,
        repeats_keys=run.habits.repeats_keys,
        tensor_ranks=layout.tp,
        sequence_parallel=layout.sp,
        regathers=run.habits.regathers,
        norm=run.habits.norm,
        compute_capability=compute_capability,
        expert_ranks=layout.ep,
        expert_tensor_ranks=expert_tensor_ranks(layout),
        grouped_experts=run.habits.grouped_experts,
        compiled=settings.compile,
        whole_leaves=not (settings.layout.data or "").startswith(("fsdp", "zero")),
        keeps_quantized_input=run.habits.keeps_quantized_input,
        computes_as_given=run.habits.computes_as_given,
        expands_twice=run.habits.expands_twice,
        images=1 if settings.images is None else settings.images,
        image_tokens=settings.image_tokens or 0,
        low_bits=low_bits(
            settings.precision.float8,
            settings.framework,
            compute_capability,
            bool(settings.precision.float8_weights),
        ),
        wide_angles=_wide_stream(settings),
        torch=parse_version(torch) if (torch := settings.versions.get("torch")) else (),
    )


def _wide_stream(settings: TrainingSettings) -> bool:
    """Whether layers are given float32, in whose dtype angles are made: by a token table in it."""
    upcast = settings.quantization.upcast if settings.quantization is not None else None
    dtype = settings.precision.weights if settings.adapter is not None else settings.precision.trainable
    return dtype == "fp32" or upcast == "all"


#: Layers that were replayed: by identity, the dtype of the stream, whether it needs a gradient, whether prompts join,
#: and how many tokens of an adapter's; with the layer's parameters, and dtype and need of a gradient of what it gives.
Replayed = dict[tuple[int, str, bool, bool, int], tuple[Replay, Unit, str, bool]]


def pieces_of(
    run: Run, holding: Holding, step: Step, layers: range, known: Replayed | None = None
) -> list[Piece]:
    """The pieces of a pipeline stage, in the order of the forward pass; of the whole model, if that is one stage.

    Parameters
    ----------
    run, holding, step
        The run, how it holds the model, and how a micro-batch runs.
    layers
        Which layers the stage has.
    known
        Layers that other stages of the same run have replayed; those of this one are added.
    """
    known = {} if known is None else known
    architecture, settings = holding.architecture, run.settings
    checkpointing = settings.checkpointing
    added = settings.gradient_accumulation > 1 or run.habits.gradient_buffers
    scheme = settings.layout.data or ""
    # FSDP makes the gradient of a unit whole before it adds it to another or scatters it, but where FSDP2 leaves that
    # to autograd. DDP copies each into its bucket, if gradients are views of buckets.
    temporary = (added and not scheme.startswith("fsdp")) or scheme.startswith("zero")
    temporary = temporary or (scheme == "ddp" and bool(settings.layout.bucket_view))
    postponed = run.habits.postpones_sharing and settings.gradient_accumulation > 1
    temporary = temporary or (scheme == "fsdp2" and postponed and adds_in_place(settings.precision))
    found: list[Piece] = []
    dtype, entering = step.compute if not step.autocast else "fp32", True
    chosen_by = selection_of(checkpointing.kind, checkpointing.modules)
    if layers.start == 0:
        # Frameworks make the embedding's result need a gradient where checkpoints would lose it (`enable_input_
        # require_grads`).
        part = settings.adapter is not None or bool(settings.trained and checkpointing.reentrant)
        hooked = part and checkpointing.kind not in (None, "none")
        seen = tower_pieces(holding, step, checkpointing, temporary)
        beside = checkpointing.kind not in (None, "none")
        piece, dtype, trained = _bottom(run, holding, step, temporary, hooked, beside)
        found += [*seen, piece, *encoder_pieces(holding, step, checkpointing, temporary, hooked)]
        entering = trained or any(piece.replay.gradients for piece in seen)
        entering = entering or (holding.adapting is not None and holding.adapting.found.virtual_tokens > 0)
    # FSDP1 hooks the inputs of a frozen unit. A checkpoint that reenters autograd gives it a leaf as input, which the
    # hook keeps, with its gradient, until all hooks are removed behind the backward pass
    # (torch `distributed/fsdp/_runtime_utils.py: _register_post_backward_reshard_only_hook`, `_finalize_params`).
    reenters = bool(checkpointing.reentrant) and scheme == "fsdp1" and not run.habits.wrapping.mixed
    code, step = run.habits.code, decoder_step(step, architecture)
    for index in layers:
        layer = architecture.layers[index]
        own = replace(code, prompts=index >= PROMPT_FROM) if code and code.prompts else code
        prompt = _prompt_tokens(holding, index)
        key = id(layer), dtype, entering, own is not None and own.prompts, prompt
        if key not in known:
            mine = replace(step, prompt_tokens=prompt) if prompt else step
            ran, given, passes = _layer(holding, mine, layer, dtype, entering, temporary, chosen_by, own)
            unit = holding.unit(layer.tensors)
            if holding.adapting is not None:
                unit = joined(unit, holding.adapting.in_layer())
            known[key] = ran, unit, given, passes
        together = checkpointing.every if checkpointing.together else 1
        chosen = checkpointing.kind not in (None, "none")
        chosen = chosen and (together > 1 or index % checkpointing.every == 0)
        chosen = chosen and (checkpointing.layers is None or index < checkpointing.layers)
        selective = chosen and chosen_by is not None
        ran, unit, dtype, passes = known[key]
        clings = chosen and entering and reenters and (settings.adapter is not None or not unit.trained)
        entering = passes
        if step.compiled and not chosen:
            ran = ran.kept_as_selected()
        # The first of each group of a stage's layers has its input kept.
        follows = chosen and (index - layers.start) % together > 0
        found.append(
            Piece(
                f"layer {index}",
                ran,
                unit,
                chosen,
                selective,
                checkpointing.offload and not run.habits.first_stays,
                clings,
                follows=follows,
                reenters=bool(checkpointing.reentrant),
            )
        )
    if layers.stop == len(architecture.layers):
        lingering = sum(piece.replay.lingering for piece in found)
        top = _top(run, holding, step, architecture, dtype, temporary, lingering)
        found.append(Piece("head and loss", top, _head_unit(run, holding, architecture), head=True))
    return found


def _prompt_tokens(holding: Holding, index: int) -> int:
    """Tokens of a prompt that a layer has of its own."""
    if holding.adapting is None:
        return 0
    found = holding.adapting.found
    inside = index >= len(holding.architecture.layers) - found.prompted_layers
    return found.prompt_length if inside else 0


def _head_unit(run: Run, holding: Holding, architecture: Architecture) -> Unit:
    """Parameters behind the last layer, and what the logits leave for the token table where they are made with that."""
    unit = holding.unit(architecture.head)
    if not architecture.tied or scores(run.settings) or run.settings.objective == "embedding":
        return unit
    weight = holding.stored(output_projection(architecture)).weight
    return replace(unit, borrowed_bytes=weight.gradient_bytes if weight.trained else 0)


def _bottom(
    run: Run, holding: Holding, step: Step, temporary: bool, hooked: bool, beside: bool
) -> tuple[Piece, str, bool]:
    """The embedding, the dtype of what it gives, and whether that needs a gradient, which a hook may see to.

    With what checkpoints hold `beside` the stream.
    """
    architecture = holding.architecture
    builder = Builder(step, holding.stored, manner_of(architecture))
    given = builder.entering(0, step.compute, grad=False)
    stream = embedding(builder, architecture, hooked)
    if beside:
        manner = manner_of(architecture)
        arguments = arguments_bytes(
            decoder_step(step, architecture), architecture.layers, manner, architecture.traits, stream.dtype
        )
        kept_beside(builder.tape, arguments, stream.dtype)
    if run.habits.whole_tables and step.tensor_ranks > 1:
        with_whole_gradients(builder.tape, step.tensor_ranks)
    ran = replay(builder.tape, given, stream, temporary)
    unit = holding.unit((*architecture.embeddings, *architecture.shared))
    if holding.adapting is not None:
        unit = joined(unit, holding.adapting.outside())
    return Piece("embedding", ran, unit), stream.dtype, stream.grad


def _layer(
    holding: Holding,
    step: Step,
    layer: Layer,
    dtype: str,
    entering: bool,
    accumulates: bool,
    selects: Selection | None,
    code: Code | None,
) -> tuple[Replay, str, bool]:
    """A layer replayed, the dtype of what it gives, and whether that needs a gradient."""
    architecture = holding.architecture
    manner = manner_of(architecture)
    own = step if code is not None else masked_step(step, layer, manner)
    builder = Builder(own, holding.stored, manner)
    size = step.stream_tokens * architecture.hidden_size * streams_of(layer)
    given = builder.entering(size, dtype, entering)
    if code is None:
        result = block(builder, given, layer, architecture.traits)
    else:
        result = litgpt_block(builder, given, layer, architecture, code)
    if selects is not None and step.compiled:
        selects = partial(read_of, builder.tape, selects)
    ran = replay(builder.tape, given, result, accumulates, selects)
    if step.compiled and selects is None:
        ran = replace(ran, selected=compiled_bytes(builder.tape, given))
    return ran, result.dtype, result.grad


def _top(
    run: Run,
    holding: Holding,
    step: Step,
    architecture: Architecture,
    dtype: str,
    accumulates: bool,
    lingering: int,
) -> Replay:
    builder = Builder(step, holding.stored, manner_of(architecture))
    if run.habits.gathers_logits and run.settings.loss.kind != "vocab-parallel":
        builder = GatheringBuilder(step, holding.stored, manner_of(architecture))
        builder.projection, builder.vocabulary = output_projection(architecture), architecture.vocab_size
    given = builder.entering(step.stream_tokens * architecture.hidden_size, dtype)
    code = run.habits.code
    if code is None:
        path = _loss_path(run, step, architecture)
        result = head(builder, given, architecture, path)
        width = DTYPE_BYTES[step.compute]
        ran = replay(builder.tape, given, result, accumulates, held=path.held_bytes(width))
        return replace(ran, returned=path.returned_bytes(width))
    chunked = run.settings.loss.kind == "chunked-head"
    result = litgpt_head(builder, given, architecture, code, chunked, lingering)
    held = held_bytes(builder, architecture, code)
    return replay(builder.tape, given, result, accumulates, held=held)


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
        run.habits.loss_inside,
        scores(run.settings),
        run.settings.objective == "embedding",
        run.habits.narrow_loss or manner_of(architecture).narrow_loss,
        step.autocast,
        run.habits.compiles_loss,
        run.habits.loss_upcasts,
        run.habits.liger,
    )
