"""Pieces that run before a decoder's layers: towers with their projectors, and an encoder."""

from __future__ import annotations

from willfit.architectures.model import Layer, Tower
from willfit.training.holding import Holding
from willfit.training.modelling.block import block
from willfit.training.modelling.builder import Builder
from willfit.training.modelling.embedding import kept_beside
from willfit.training.modelling.encoder import encoder_front, encoder_output, encoder_step
from willfit.training.modelling.manners import manner_of
from willfit.training.modelling.masks import arguments_bytes, masked_step
from willfit.training.modelling.step import Step
from willfit.training.modelling.tower import (
    Tiled,
    patches,
    projector,
    tiled,
    tokens_of,
    tower_layer,
    tower_step,
)
from willfit.training.settings import CheckpointingSettings
from willfit.training.sharding.base import Unit
from willfit.training.tape import Replay, replay
from willfit.training.timeline import Piece


def tower_pieces(
    holding: Holding, step: Step, checkpointing: CheckpointingSettings, temporary: bool
) -> list[Piece]:
    """A model's towers, layer by layer, each with one item for every sequence.

    A tower whose parameters are all frozen keeps nothing.

    Parameters
    ----------
    holding, step
        How the run holds the model, and how a micro-batch runs.
    checkpointing
        Of layers.
    temporary
        Gradients are added to others and given back.
    """
    found: list[Piece] = []
    for tower in holding.architecture.towers:
        if tower.layers and step.images and (tower.positions or tower.tokens):
            found += _tower(holding, tower_step(step, tower), step, tower, checkpointing, temporary)
        else:
            found.append(_held(holding, step, tower, temporary))
    return found


def _held(holding: Holding, step: Step, tower: Tower, temporary: bool) -> Piece:
    """A tower that nothing is known to run through: its parameters alone."""
    builder = Builder(step, holding.stored)
    given = builder.entering(0, step.compute, grad=False)
    return Piece(
        f"{tower.modality} tower", replay(builder.tape, given, given, temporary), holding.unit(tower.tensors)
    )


def _tower(
    holding: Holding,
    inside: Step,
    step: Step,
    tower: Tower,
    checkpointing: CheckpointingSettings,
    temporary: bool,
) -> list[Piece]:
    apart = tiled(tower)
    name = tower.modality
    builder = Builder(inside, holding.stored, apart.manner)
    given = builder.entering(0, inside.compute, grad=False)
    value = patches(builder, apart)
    front = [t for t in apart.rest if t.kind != "linear"]
    found = [Piece(f"{name} patches", replay(builder.tape, given, value, temporary), holding.unit(front))]
    trained, unit = value.grad, _share(holding.unit(apart.own.values()), tower.layers)
    known: dict[bool, tuple[Replay, bool]] = {}
    for index in range(tower.layers):
        if trained not in known:
            known[trained] = _tower_layer(holding, inside, apart, trained, temporary)
        ran, trained = known[trained]
        chosen = checkpointing.kind == "full" and trained
        found.append(Piece(f"{name} layer {index}", ran, unit, chosen, offloaded=checkpointing.offload))
    builder = Builder(inside, holding.stored, apart.manner)
    given = builder.entering(inside.tokens * tower.hidden_size, inside.compute, trained)
    tokens = step.batch * min(step.images * (tokens_of(step, tower) or inside.length), step.length)
    value = projector(builder, given, apart, tokens)
    matrices = [t for t in apart.rest if t.kind == "linear"]
    ran = replay(builder.tape, given, value, temporary)
    found.append(Piece(f"{name} projector", ran, holding.unit(matrices)))
    return found


def _tower_layer(
    holding: Holding, inside: Step, apart: Tiled, trained: bool, temporary: bool
) -> tuple[Replay, bool]:
    """One layer's replay, and whether what it gives needs a gradient."""
    builder = Builder(inside, apart.storing(holding.stored), apart.manner)
    given = builder.entering(inside.tokens * apart.tower.hidden_size, inside.compute, trained)
    value = tower_layer(builder, given, apart)
    return replay(builder.tape, given, value, temporary), value.grad


def _share(unit: Unit, layers: int) -> Unit:
    """One layer's part of the parameters of all."""
    return Unit(
        unit.bytes // layers,
        unit.gathered_bytes // layers,
        unit.trained // layers,
        unit.gradient_bytes // layers,
        unit.largest,
    )


def encoder_pieces(
    holding: Holding, step: Step, checkpointing: CheckpointingSettings, temporary: bool, hooked: bool = False
) -> list[Piece]:
    """The encoder of an encoder-decoder: what is in front of its layers, these, and its output, which stays.

    Parameters
    ----------
    holding, step
        How the run holds the model, and how a micro-batch runs.
    checkpointing
        Of layers.
    temporary
        Gradients are added to others and given back.
    hooked
        See `modelling/embedding.py`.
    """
    architecture = holding.architecture
    if not architecture.encoder:
        return []
    inside = encoder_step(step, architecture)
    nothing = Unit(0, 0, 0, 0)
    manner = manner_of(architecture)
    builder = Builder(inside, holding.stored, manner)
    given = builder.entering(0, inside.compute, grad=False)
    value = encoder_front(builder, architecture, hooked)
    if checkpointing.kind not in (None, "none"):
        arguments = arguments_bytes(inside, architecture.encoder, manner, architecture.traits, value.dtype)
        kept_beside(builder.tape, arguments, value.dtype)
    found = [Piece("encoder front", replay(builder.tape, given, value, temporary), nothing)]
    dtype, size = value.dtype, inside.tokens * architecture.hidden_size
    known: dict[int, tuple[Replay, Unit]] = {}
    for index, layer in enumerate(architecture.encoder):
        if id(layer) not in known:
            known[id(layer)] = _encoder_layer(holding, inside, layer, dtype, temporary)
        chosen = checkpointing.kind == "full"
        found.append(
            Piece(f"encoder layer {index}", *known[id(layer)], chosen, offloaded=checkpointing.offload)
        )
    builder = Builder(inside, holding.stored, manner)
    given = builder.entering(size, dtype)
    value = encoder_output(builder, given, architecture)
    found.append(Piece("encoder output", replay(builder.tape, given, value, temporary), nothing))
    return found


def _encoder_layer(
    holding: Holding, inside: Step, layer: Layer, dtype: str, temporary: bool
) -> tuple[Replay, Unit]:
    architecture = holding.architecture
    manner = manner_of(architecture)
    builder = Builder(masked_step(inside, layer, manner), holding.stored, manner)
    given = builder.entering(inside.tokens * architecture.hidden_size, dtype)
    value = block(builder, given, layer, architecture.traits)
    return replay(builder.tape, given, value, temporary), holding.unit(layer.tensors)
