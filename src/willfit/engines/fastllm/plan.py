"""Where fastLLM puts layers, experts and caches."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from willfit.architectures.mixers import Attention, LatentAttention, Mixer
from willfit.architectures.model import Layer, Tensor
from willfit.engines.activations import layer_activation_elements
from willfit.engines.base import Machine, Subject
from willfit.engines.fastllm.settings import IN_RAM, Settings, Shares
from willfit.engines.fastllm.weights import held_bytes, matrix_bytes, table_bytes
from willfit.errors import BadInput
from willfit.formats.weights import rank_shape
from willfit.quantities import ceil_div, round_up

#: Cards that share a layer; empty for RAM.
Cards = tuple[int, ...]

#: A place that is no card and no RAM.
_DISK = (-1,)

#: Parts that are not loaded.
_ASIDE = ("vision", "audio", "mtp")

#: Tokens by which a growing cache grows, and over which other kinds of attention are averaged.
_UNIT, _SAMPLE = 128, 4096

_STATE_BYTES = 2

#: Numbers in fp32 that the processor has for each row of an expert: input, gate, up, their product and output.
_FLOAT = 4


@dataclass(frozen=True)
class Plan:
    """A model on devices as settings put it there."""

    subject: Subject
    machine: Machine
    settings: Settings

    # Places

    @cached_property
    def count(self) -> int:
        """Layers."""
        return len(self.subject.architecture.layers)

    @cached_property
    def cards(self) -> int:
        """Cards that there are."""
        return sum(not device.is_cpu for device in self.machine.devices)

    def _cards(self, name: str) -> Cards:
        """The cards of a device's name."""
        if name in IN_RAM:
            return ()
        if name.partition(":")[0] == "disk":
            return _DISK
        kind, _, listed = name.partition(":")
        if kind not in ("cuda", "multicuda"):
            raise BadInput(
                f"fastLLM has no device {name[:40]!r}", "known: cuda, cuda:1, multicuda:0,1, cpu, numa, disk"
            )
        numbers = tuple(re.sub(r"[:-].*", "", one.strip()) for one in listed.split(",")) if listed else ("0",)
        if not all(one.isascii() and one.isdigit() for one in numbers):
            raise BadInput(
                f"how {name[:40]!r} divides matrices is not worked out", "name cards: multicuda:0,1"
            )
        found = tuple(int(one) for one in numbers)
        if max(found) >= self.cards:
            raise BadInput(
                f"{name[:40]!r} needs {max(found) + 1} cards, {self.cards} given", "write --gpu 2x..."
            )
        return found

    def _of(self, shares: Shares, layer: int, count: int) -> Cards:
        """Where one of so many layers is (`src/fastllm.cpp: SelectDeviceFromMap`): devices go by their names."""
        total, reached = sum(share for _, share in shares), 0
        ordered = sorted(shares)
        for name, share in ordered:
            reached += share
            if (layer + 1) * total <= reached * count:
                return self._cards(name)
        return self._cards(ordered[-1][0])

    @cached_property
    def layers(self) -> tuple[Cards, ...]:
        """The cards of each layer."""
        main = self.settings.main() if self.cards or self.settings.device else (("cpu", 1),)
        return tuple(self._of(main, at, self.count) for at in range(self.count))

    @cached_property
    def experts(self) -> tuple[Cards, ...]:
        """The cards of each layer's experts."""
        settings = self.settings
        given = settings.experts(self.subject.architecture) if self.cards else (("cpu", 1),)
        last = settings.moe_device_layers if settings.moe_device_layers >= 0 else self.count
        front = max(0, self.count - last)
        back = (self._of(given, at, self.count - front) for at in range(self.count - front))
        return (*self.layers[:front], *back)

    @cached_property
    def used(self) -> int:
        """Cards up to the last that holds something."""
        return max((max(cards) + 1 for cards in (*self.layers, *self.experts) if cards), default=0)

    # Weights

    @cached_property
    def _lines(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for at, line in enumerate(self.subject.lines):
            found.setdefault(id(line.tensor), []).append(at)
        return found

    def _held(self, tensor: Tensor, cards: Cards) -> int:
        """Bytes of a layer's tensor on one of some cards, or in RAM; on average where layers differ."""
        settings, size, times = self.settings, 0, 0
        dtype = settings.moe_dtype or settings.dtype if tensor.part == "experts" else settings.dtype
        on_card = bool(cards) and cards != _DISK
        shape = rank_shape(tensor, len(cards)) if on_card else tensor.shape
        for at in self._lines.get(id(tensor), ()):
            line = self.subject.lines[at]
            size += held_bytes(line, shape, dtype, on_card) * tensor.copies * line.times
            times += line.times
        return size // max(1, times)

    def _is_expert(self, tensor: Tensor) -> bool:
        shared = not self.settings.cuda_shared_expert and "shared_expert" in tensor.name
        return tensor.part == "experts" or shared

    @cached_property
    def _sizes(self) -> dict[tuple[int, bool, Cards], int]:
        """Bytes of each kind of layer, and of its experts, in each place."""
        found = {}
        for layer, _ in self.subject.architecture.blocks:
            for cards in {*self.layers, *self.experts}:
                for experts in (False, True):
                    found[id(layer), experts, cards] = sum(
                        self._held(tensor, cards)
                        for tensor in layer.tensors
                        if self._is_expert(tensor) == experts and tensor.part not in _ASIDE
                    )
        return found

    def layer_bytes(self, at: int, experts: bool) -> int:
        """Bytes of a layer, or of its experts, on each of its cards or in RAM."""
        place = self.experts[at] if experts else self.layers[at]
        return self._sizes[id(self.subject.architecture.layers[at]), experts, place]

    def weights(self, card: int) -> tuple[int, int]:
        """Bytes of layers, of the head and of what belongs to no layer, and those of experts, on a card."""
        others = sum(self.layer_bytes(at, False) for at, cards in enumerate(self.layers) if card in cards)
        experts = sum(self.layer_bytes(at, True) for at, cards in enumerate(self.experts) if card in cards)
        if self.layers and card in self.layers[-1]:
            others += self.head(self.layers[-1])
        if card == 0:
            others += self.table if self.settings.cuda_embedding else 0
        return others, experts

    def head(self, cards: Cards) -> int:
        """Bytes of the head, which a model that shares its token table has as a matrix of its own."""
        architecture = self.subject.architecture
        size = sum(self._held(tensor, cards) for tensor in architecture.head)
        if architecture.tied:
            shape = ceil_div(architecture.vocab_size, max(1, len(cards))), architecture.hidden_size
            size += matrix_bytes("float16", shape, bool(cards))
        return size

    @cached_property
    def table(self) -> int:
        """Bytes of the token table."""
        return sum(
            table_bytes(one) for one in self.subject.architecture.embeddings if one.kind == "embedding"
        )

    def in_ram(self) -> tuple[int, int]:
        """Bytes of layers with the head, and of experts, in RAM."""
        layers = sum(self.layer_bytes(at, False) for at, cards in enumerate(self.layers) if not cards)
        experts = sum(self.layer_bytes(at, True) for at, cards in enumerate(self.experts) if not cards)
        return layers + (self.head(()) if self.layers and not self.layers[-1] else 0), experts

    def on_disk(self) -> int:
        """Bytes of experts that are read when they are needed."""
        return sum(self.layer_bytes(at, True) for at, cards in enumerate(self.experts) if cards == _DISK)

    # Caches

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return self.settings.context or self.subject.architecture.max_positions or _SAMPLE

    def grown(self, tokens: int) -> int:
        """Tokens that a growing cache has room for."""
        return round_up(tokens, _UNIT)

    def token_elements(self, layer: Layer, cards: Cards) -> int:
        """Elements of a token in a layer's cache on each of its cards."""
        return sum(_elements(mixer, max(1, len(cards))) for mixer in layer.mixers)

    def token_bytes(self, card: int | None) -> int:
        """Bytes of a token in the caches of a card; None for RAM."""
        layers = self._on(card)
        total = sum(
            self.token_elements(self.subject.architecture.layers[at], self.layers[at]) for at in layers
        )
        return total * self.settings.kv_bytes()

    def widest_layer(self, card: int) -> int:
        """The most bytes of a token in a layer's cache on a card."""
        layers = self.subject.architecture.layers
        found = (self.token_elements(layers[at], self.layers[at]) for at in self._on(card))
        return max(found, default=0) * self.settings.kv_bytes()

    def state_bytes(self, card: int | None) -> int:
        """Bytes of a sequence's states on a card."""
        total = 0
        for at in self._on(card):
            ranks = max(1, len(self.layers[at]))
            for mixer in self.subject.architecture.layers[at].mixers:
                for state in mixer.fixed_states:
                    total += state.elements * ceil_div(state.units, ranks) // state.units * _STATE_BYTES
        return total

    def _on(self, card: int | None) -> Sequence[int]:
        return [at for at, cards in enumerate(self.layers) if (not cards if card is None else card in cards)]

    @property
    def paged(self) -> bool:
        """Whether caches are in pages that are allocated at once."""
        return self.subject.architecture.model_type in self.settings.era.paged and any(self.layers)

    @property
    def unusual(self) -> bool:
        """Whether there is attention of a kind whose cache was not read."""
        mixers = [mixer for layer, _ in self.subject.architecture.blocks for mixer in layer.mixers]
        return not all(isinstance(one, Attention | LatentAttention) or one.fixed_states for one in mixers)

    # Work

    @property
    def chunk(self) -> int:
        """Tokens of a part of a prompt, at most a sequence's."""
        return min(self.settings.chunk(self.subject.architecture), self.length)

    def widest(self, card: int) -> int:
        """Elements of a token at the widest instant of the layers on a card."""
        found = 0
        for at in self._on(card):
            layer = self.subject.architecture.layers[at]
            ffn = layer.feed_forward
            if ffn is not None and ffn.experts and card not in self.experts[at]:
                layer = replace(layer, feed_forward=replace(ffn, experts=0))
            hidden = self.subject.architecture.hidden_size
            found = max(found, layer_activation_elements(layer, hidden, max(1, len(self.layers[at]))))
        return found

    def rows(self) -> tuple[int, int]:
        """Rows of a part of a prompt in experts that RAM holds, and bytes of each; nothing if it holds none."""
        hidden, each, top = self.subject.architecture.hidden_size, 0, 0
        for at, cards in enumerate(self.experts):
            ffn = self.subject.architecture.layers[at].feed_forward
            if not cards and ffn is not None and ffn.experts:
                each, top = max(each, (2 * hidden + 3 * ffn.expert_width) * _FLOAT), max(top, ffn.top_k)
        return self.chunk * top, each


def _elements(mixer: Mixer, ranks: int) -> int:
    """Elements of a token in a layer's cache on each of some cards: windows do not make it smaller."""
    if isinstance(mixer, LatentAttention):
        return mixer.latent_per_token + mixer.index_dim
    if isinstance(mixer, Attention):
        heads = ceil_div(mixer.kv_heads, ranks)
        return heads * (mixer.head_dim + mixer.value_dim) if mixer.keeps_cache else 0
    return int(mixer.cached_elements(_SAMPLE)) // _SAMPLE
