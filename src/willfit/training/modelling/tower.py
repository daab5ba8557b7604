"""Vision and audio towers: their layers as those of an encoder, and the projector into the language model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.architectures.mixers import Attention
from willfit.architectures.model import FeedForward, Layer, Tensor, Tower
from willfit.architectures.traits import Traits
from willfit.training.modelling.block import block
from willfit.training.modelling.builder import Builder, Stored, Storing
from willfit.training.modelling.manners import Manner
from willfit.training.modelling.step import Step
from willfit.training.tape import Value, Weight


@dataclass(frozen=True, slots=True)
class Tiled:
    """A tower with one of its layers apart.

    Attributes
    ----------
    tower
        As in the architecture.
    layer
        One of its layers, of tensors that occur once.
    own
        The tower's tensors that a layer has a part of, by name.
    rest
        Embedding of patches, and the projector.
    traits, manner
        Norms and activation, and how positions turn.
    """

    tower: Tower
    layer: Layer
    own: dict[str, Tensor]
    rest: tuple[Tensor, ...]
    traits: Traits
    manner: Manner

    def storing(self, stored: Storing) -> Storing:
        """How one layer's share of a tensor lies."""

        def share(tensor: Tensor) -> Stored:
            found = stored(self.own[tensor.name])
            copies, weight = self.own[tensor.name].copies, found.weight
            return Stored(
                Weight(weight.elements // copies, weight.dtype, weight.trained, weight.gradient_dtype),
                found.expanded // copies,
                found.adapter,
                bits=found.bits,
            )

        return share


def tiled(tower: Tower) -> Tiled:
    """Take a tower apart.

    A layer's matrices are its MLP's if they lead to or from the MLP's width, else its attention's. Norms without shifts
    are RMS norms; gated MLPs are bent by `silu`, those of CLIP, whose towers have a norm in front, and of Qwen2-VL by
    `quick_gelu`. Qwen's towers turn positions, and put the outputs of several items or windows together.
    """
    repeated = [tensor for tensor in tower.tensors if "{layer}" in tensor.name]
    # Where layers are of several kinds, those of the most numerous stand for all.
    usual = any(tensor.copies == tower.layers for tensor in repeated)
    count = tower.layers if usual else max((tensor.copies for tensor in repeated), default=0)
    own = {tensor.name: tensor for tensor in repeated if tensor.copies == count}
    parts = tuple(_part(tensor, tower) for tensor in own.values())
    gated = sum(1 for t in parts if t.part == "mlp" and t.kind == "linear") > 2
    norms = [t for t in parts if t.part == "norm"]
    shifted = any(t.name.endswith(".bias") for t in norms)
    turns = any("visual.blocks" in name for name in own)
    quick = any("pre_layrnorm" in t.name for t in tower.tensors) or (
        turns and any(name.endswith("mlp.fc1.weight") for name in own)
    )
    heads = max(1, tower.heads)
    mixer = Attention(heads, heads, tower.hidden_size // heads, tower.hidden_size // heads, keeps_cache=False)
    activation = "silu" if gated else "quick_gelu" if quick else "gelu"
    return Tiled(
        tower,
        Layer(parts, (mixer,), FeedForward(tower.width, gated)),
        own,
        tuple(t for t in tower.tensors if t.name not in own),
        Traits(activation=activation, norm="layer_norm" if shifted else "rms"),
        Manner(rope="wide" if turns else "none", gathers_output=turns),
    )


def _part(tensor: Tensor, tower: Tower) -> Tensor:
    """A layer's share of a tensor, in the part of a layer that it belongs to."""
    if tensor.kind == "norm" or (tensor.kind == "bias" and "norm" in tensor.name):
        return replace(tensor, part="norm", kind="norm", copies=1)
    inside = tower.width in tensor.shape or "mlp" in tensor.name or "fc" in tensor.name
    return replace(tensor, part="mlp" if inside else "attention", copies=1)


def tower_step(step: Step, tower: Tower) -> Step:
    """How a tower runs: the items of all sequences, no more of them than sequences have room for their tokens."""
    positions = tower.positions or tower.tokens
    room, tokens = step.length // step.images, tokens_of(step, tower)
    if tower.tokens:
        positions = positions * min(tokens, room) // tower.tokens
    return replace(
        step, batch=step.batch * step.images, length=positions, keys=positions, attends_back=False, masked=False,
        sequence_parallel=False,
    )  # fmt: skip


def tokens_of(step: Step, tower: Tower) -> int:
    """Tokens that one item becomes; 0 if that is not known."""
    return step.image_tokens or tower.tokens


def tower_layer(builder: Builder, value: Value, apart: Tiled) -> Value:
    """One layer."""
    return block(builder, value, apart.layer, apart.traits)


def patches(builder: Builder, apart: Tiled) -> Value:
    """Embed patches: the gradient of the convolution needs the pixels, which the batch holds."""
    tape = builder.tape
    tape.module = apart.tower.modality
    weights = tuple(
        builder.stored(t).weight
        for t in apart.rest
        if t.kind in ("conv", "other") and "projector" not in t.name
    )
    return tape.run(
        "patches", (), builder.step.tokens * apart.tower.hidden_size, builder.step.compute, weights=weights
    )


def projector(builder: Builder, value: Value, apart: Tiled, tokens: int) -> Value:
    """Behind the last layer: norms and matrices into the language model, with an activation between two.

    Parameters
    ----------
    builder
        Writes the tape.
    value
        Of all positions.
    apart
        The tower.
    tokens
        Tokens of the language model that come out.
    """
    tape = builder.tape
    tape.module = "projector"
    matrices = [t for t in apart.rest if t.kind == "linear"]
    biases = {t.name.rpartition(".")[0]: t for t in apart.rest if t.kind == "bias"}
    for index, matrix in enumerate(matrices):
        inputs = matrix.shape[-1]
        if tokens * inputs < value.elements:
            # Neighbours are pooled.
            value = tape.run("pool", (value,), tokens * inputs, value.dtype)
        rows = max(1, value.elements // inputs)
        if index:
            value = builder.activation(value, "gelu")
        value = builder.linear(value, matrix, biases.get(matrix.name.rpartition(".")[0]), rows=rows)
    return value
