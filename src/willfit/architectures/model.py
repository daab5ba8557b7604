"""What a model is: its tensors, its layers, and what each layer keeps while it runs.

Everything here is a plain frozen record. Families build these records from a config; formats, engines
and surfaces read them. Identical layers share one `Layer` object, so a 61-layer model with 256 experts
a layer is a few dozen records, not 45,000.

Naming
------
A tensor's name is the one in the published checkpoint, with `{layer}` and `{expert}` standing for the
indices: `model.layers.{layer}.mlp.experts.{expert}.up_proj.weight`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal

from willfit.architectures.mixers import Mixer
from willfit.architectures.traits import UNREAD, Traits

#: Where a tensor belongs. `experts` are the routed experts only: shared experts run for every token and
#: count as `mlp`. `mixer` is a state-space, linear-attention, recurrent or convolution token mixer.
Part = Literal[
    "embedding", "attention", "mixer", "mlp", "experts", "router", "norm", "head", "vision", "audio", "mtp"
]
PARTS: tuple[Part, ...] = Part.__args__  # type: ignore[attr-defined]

#: What a tensor is, which decides whether a quantization method touches it.
#: `linear`   weight of a linear layer, shape (out, in); as 3-D (experts, out, in) for fused experts
#: `embedding` look-up table, shape (rows, width)
#: `norm`     scale or shift of a normalisation
#: `conv`     convolution kernel
#: `bias`     bias of a linear or convolution layer
#: `other`    any other parameter (state decay, sinks, scalars, learned positions)
#: `buffer`   stored in the checkpoint but no parameter (router correction bias, rotary frequencies)
Kind = Literal["linear", "embedding", "norm", "conv", "bias", "other", "buffer"]


@dataclass(frozen=True, slots=True)
class Split:
    """How tensor parallelism divides a tensor, as the maths of the layer demands.

    Attributes
    ----------
    axis
        The axis that is divided (0: output features, heads or vocabulary rows; 1: input features;
        for fused 3-D experts counted on (experts, out, in)).
    units
        How many indivisible units lie along it: attention heads, KV heads, intermediate channels.
        With more ranks than units each rank holds one unit (KV heads are then replicated).
    sections
        For a fused tensor whose sections divide differently (queries by heads, keys and values by KV
        heads): size along the axis and units of each section. Empty if the whole axis divides alike.
    """

    axis: int
    units: int
    sections: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Tensor:
    """One stored tensor, or `copies` tensors that differ only in `{expert}`.

    Attributes
    ----------
    name
        Name in the checkpoint, with `{layer}` and `{expert}` for the indices.
    shape
        Logical shape, before any quantization packs it. Linear weights are (out, in).
    part, kind
        See `Part` and `Kind`.
    split
        How tensor parallelism divides it; None if every rank holds all of it.
    copies
        Number of such tensors in the layer (routed experts stored one by one).
    """

    name: str
    shape: tuple[int, ...]
    part: Part
    kind: Kind = "linear"
    split: Split | None = None
    copies: int = 1

    @property
    def elements(self) -> int:
        """Elements over all copies."""
        return prod(self.shape) * self.copies

    def on_rank(self, ranks: int) -> int:
        """Elements that one of `ranks` tensor-parallel ranks holds (the fullest one)."""
        if self.split is None or ranks == 1 or self.elements == 0:
            return self.elements
        if self.split.sections:
            per_index = self.elements // self.shape[self.split.axis]
            return per_index * sum(
                size // units * max(1, -(-units // ranks)) for size, units in self.split.sections
            )
        units = self.split.units
        return self.elements // units * max(1, -(-units // ranks))


@dataclass(frozen=True, slots=True)
class FeedForward:
    """The widths of a layer's feed-forward part, for activations and FLOPs.

    Attributes
    ----------
    width
        Intermediate size of the dense MLP (0 if the layer has none), or of all shared experts together.
    gated
        True for gate/up/down (SwiGLU, GeGLU), False for up/down.
    experts, top_k, expert_width
        Routed experts, how many a token uses, and the intermediate size of one (0 if dense).
    """

    width: int
    gated: bool = True
    experts: int = 0
    top_k: int = 0
    expert_width: int = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder or encoder layer.

    Attributes
    ----------
    tensors
        Its tensors, in checkpoint order.
    mixers
        What mixes tokens, each with what it keeps per token or per sequence. Usually one; two for
        parallel attention + Mamba or for self- plus cross-attention; none for an MLP-only layer.
    feed_forward
        Widths of its MLP or experts; None if it has none.
    """

    tensors: tuple[Tensor, ...]
    mixers: tuple[Mixer, ...] = ()
    feed_forward: FeedForward | None = None

    @property
    def kind(self) -> str:
        """What a reader would call the layer: its mixers' kinds, and its kind of feed-forward alone if none."""
        if self.mixers:
            return " + ".join(mixer.kind for mixer in self.mixers)
        return "experts" if self.feed_forward and self.feed_forward.experts else "mlp"


@dataclass(frozen=True, slots=True)
class Tower:
    """A vision or audio encoder with its projector, run before the language model.

    Attributes
    ----------
    modality
        `vision` or `audio`.
    tensors
        All its tensors (part `vision` or `audio`); `{layer}` tensors carry `copies` = number of layers.
    hidden_size, layers, heads, width
        Shape of its transformer, for activations.
    tokens
        Language-model tokens that one item (image at default or largest size, audio window) becomes; 0 if unknown.
    positions
        Positions of the encoder that such an item takes; 0 if unknown.
    """

    modality: Literal["vision", "audio"]
    tensors: tuple[Tensor, ...]
    hidden_size: int
    layers: int
    heads: int
    width: int
    tokens: int = 0
    positions: int = 0


@dataclass(frozen=True)
class Rope:
    """Rotary embedding settings that decide how large an engine's cos/sin table is.

    Attributes
    ----------
    dim
        Rotated dimensions of a head.
    kind
        `default`, `linear`, `dynamic`, `yarn`, `longrope`, `llama3`, `mrope`, `interleaved_mrope`, `proportional`, ...
    factor
        Scaling factor (1.0 if unscaled).
    original_positions
        `original_max_position_embeddings` if given, else 0.
    """

    dim: int
    kind: str = "default"
    factor: float = 1.0
    original_positions: int = 0


@dataclass(frozen=True)
class Architecture:
    """A model, from its config alone.

    Attributes
    ----------
    model_type
        The config's `model_type` (or the GGUF architecture).
    family
        Name of the family module that built it; `generic` for the fallback.
    hidden_size, vocab_size, max_positions
        As in the config (of the language model, if nested). `max_positions` is 0 if unlimited.
    dtype
        The dtype that the config names for its weights.
    embeddings
        Input side: token table, positions, per-layer inputs, embedding norms.
    layers
        Decoder layers in order (encoder layers for an encoder-only model).
    head
        Final norm and output projection; the projection is absent if it shares the embedding.
    tied
        The output projection shares the token embedding.
    encoder
        Encoder layers of an encoder-decoder, in order.
    shared
        Tensors that several layers use but that exist once (relative biases, a shared attention block).
    towers
        Vision and audio encoders.
    mtp
        Tensors of multi-token-prediction modules (part `mtp`): in the checkpoint, not in the model proper.
    mtp_layers
        The same modules as layers, for engines that run them.
    ropes
        One per distinct rotary table.
    encoder_only, causal
        An encoder keeps no cache. `causal` is False if attention looks both ways.
    encoder_tokens
        Positions of an encoder-decoder's encoder (1500 for Whisper); 0 if not fixed.
    class_names
        The config's `architectures`, by which engines choose their implementation; empty if it has none.
    traits
        What training depends on beside tensors: norms, activation, dropout (of the language model).
    notes
        What a reader should know: assumptions, fields that were not understood.
    """

    model_type: str
    family: str
    hidden_size: int
    vocab_size: int
    max_positions: int
    dtype: str
    embeddings: tuple[Tensor, ...]
    layers: tuple[Layer, ...]
    head: tuple[Tensor, ...]
    tied: bool
    encoder: tuple[Layer, ...] = ()
    shared: tuple[Tensor, ...] = ()
    towers: tuple[Tower, ...] = ()
    mtp: tuple[Tensor, ...] = ()
    mtp_layers: tuple[Layer, ...] = ()
    ropes: tuple[Rope, ...] = ()
    encoder_only: bool = False
    causal: bool = True
    encoder_tokens: int = 0
    class_names: tuple[str, ...] = ()
    traits: Traits = UNREAD
    notes: tuple[str, ...] = ()

    def tensors(self, mtp: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of the checkpoint with its name, `{layer}` filled in; `{expert}` stays.

        Parameters
        ----------
        mtp
            Whether to include the multi-token-prediction modules.
        """
        for tensor in (*self.embeddings, *self.shared):
            yield tensor.name, tensor
        for layers in (self.encoder, self.layers):
            for index, layer in enumerate(layers):
                for tensor in layer.tensors:
                    yield tensor.name.replace("{layer}", str(index)), tensor
        for tensor in self.head:
            yield tensor.name, tensor
        for tower in self.towers:
            for tensor in tower.tensors:
                yield tensor.name, tensor
        if mtp:
            for tensor in self.mtp:
                yield tensor.name, tensor

    @property
    def logits_per_row(self) -> int:
        """Scores that the head gives for a position: the vocabulary, or 0 for a model without such a head."""
        scored = any(tensor.kind == "linear" and tensor.shape[0] == self.vocab_size for tensor in self.head)
        return self.vocab_size if self.tied or scored else 0

    @property
    def positions_end(self) -> int:
        """The longest sequence if positions are learned one by one; 0 if there is always one more."""
        learned = any(
            tensor.kind in ("other", "embedding") and ("pos" in tensor.name or "wpe" in tensor.name)
            for tensor in self.embeddings
        )
        return self.max_positions if learned else 0

    @cached_property
    def blocks(self) -> tuple[tuple[Layer, int], ...]:
        """Distinct decoder layers with how often each occurs, in order of first appearance."""
        return _distinct(self.layers)

    @cached_property
    def encoder_blocks(self) -> tuple[tuple[Layer, int], ...]:
        """Distinct encoder layers with how often each occurs."""
        return _distinct(self.encoder)

    @cached_property
    def parameters_by_part(self) -> dict[Part, int]:
        """Parameters of each part, as the loaded model has them: no buffers, no MTP, a tied head once."""
        counts: dict[Part, int] = dict.fromkeys(PARTS, 0)
        for tensor, times in self._weighted():
            if tensor.kind != "buffer":
                counts[tensor.part] += tensor.elements * times
        return {part: count for part, count in counts.items() if count}

    @cached_property
    def parameters(self) -> int:
        """Parameters of the loaded model: no buffers, no MTP modules, a tied head once."""
        return sum(self.parameters_by_part.values())

    @cached_property
    def active_parameters(self) -> int:
        """Parameters that one token uses: all but the routed experts that it does not visit."""
        idle = 0
        for blocks in (self.blocks, self.encoder_blocks):
            for layer, times in blocks:
                ffn = layer.feed_forward
                if ffn and ffn.experts:
                    routed = sum(
                        t.elements for t in layer.tensors if t.part == "experts" and t.kind != "buffer"
                    )
                    idle += times * (routed - routed * ffn.top_k // ffn.experts)
        return self.parameters - idle

    @cached_property
    def mtp_parameters(self) -> int:
        """Parameters of the multi-token-prediction modules in the checkpoint."""
        return sum(tensor.elements for tensor in self.mtp if tensor.kind != "buffer")

    @cached_property
    def stored_buffers(self) -> int:
        """Elements stored in the checkpoint that are no parameters, MTP modules included."""
        own = sum(tensor.elements * times for tensor, times in self._weighted() if tensor.kind == "buffer")
        return own + sum(tensor.elements for tensor in self.mtp if tensor.kind == "buffer")

    def _weighted(self) -> Iterator[tuple[Tensor, int]]:
        for tensor in (*self.embeddings, *self.shared, *self.head):
            yield tensor, 1
        for blocks in (self.encoder_blocks, self.blocks):
            for layer, times in blocks:
                for tensor in layer.tensors:
                    yield tensor, times
        for tower in self.towers:
            for tensor in tower.tensors:
                yield tensor, 1


def _distinct(layers: tuple[Layer, ...]) -> tuple[tuple[Layer, int], ...]:
    """Group layers that are the same object, keeping the order of first appearance."""
    counts: dict[int, int] = {}
    first: dict[int, Layer] = {}
    for layer in layers:
        counts[id(layer)] = counts.get(id(layer), 0) + 1
        first.setdefault(id(layer), layer)
    return tuple((first[key], count) for key, count in counts.items())
