"""What each card holds: layers in order until one is full, or a part of every layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture, Layer
from willfit.engines.base import Subject
from willfit.engines.exllamav2.scratch import rotary_bytes, scratch_parts, work_of
from willfit.engines.exllamav2.settings import Resolved, Settings, token_bytes
from willfit.engines.layer_split import Block, Kept, Stored, layer_ranges, room, stored_parts, tied_head_bytes
from willfit.engines.sharding import Sharding
from willfit.hardware.device import Device
from willfit.quantities import MIB

#: Left free on each card that the loader fills, beside what is asked for (`model.py: load_autosplit_gen`).
_LEAST_FREE = 256 * MIB

#: Compute capability that flash attention needs.
_FLASH_MAJOR = 8


@dataclass(frozen=True)
class Plan:
    """A model on cards.

    Attributes
    ----------
    subject
        The model.
    devices
        The cards.
    settings, resolved
        See there.
    """

    subject: Subject
    devices: tuple[Device, ...]
    settings: Settings
    resolved: Resolved

    @property
    def architecture(self) -> Architecture:
        """Of the model."""
        return self.subject.architecture

    @property
    def ranks(self) -> int:
        """Cards that hold a part of each layer."""
        return len(self.devices) if self.settings.tensor_parallel else 1

    @cached_property
    def stored(self) -> Stored:
        """The model's parts; of a part of each layer, the fullest card's."""
        return stored_parts(self.subject, Sharding(self.ranks))

    @cached_property
    def head(self) -> int:
        """Bytes of the head."""
        return self.stored.head + tied_head_bytes(self.subject, self.ranks)

    @cached_property
    def scratch(self) -> dict[str, tuple[int, str]]:
        """What modules ask of the scratch: nothing where matrices are in 16 bits."""
        if not self.subject.recipe.method:
            return {}
        return scratch_parts(self.architecture, self.settings, self.resolved, self.ranks)

    @cached_property
    def each_card(self) -> int:
        """Bytes of each card whatever layers it has: the scratch, rotary tables, a layer of an unpacked cache."""
        scratch = max((size for size, _ in self.scratch.values()), default=0)
        return scratch + rotary_bytes(self.architecture, self.resolved)[0] + self.unpacked

    @cached_property
    def unpacked(self) -> int:
        """Bytes of a layer's keys and values in 16 bits, to which a quantized cache is unpacked."""
        if self.settings.cache_mode == "FP16":
            return 0
        sizes = (
            token_bytes(mixer, "FP16", self.ranks)
            for layer, _ in self.architecture.blocks
            for mixer in layer.mixers
            if isinstance(mixer, Attention)
        )
        return self.resolved.tokens * max(sizes, default=0)

    @cached_property
    def draft_bytes(self) -> tuple[int, int]:
        """Weights and cache of the model that drafts."""
        draft = self.subject.draft
        if not self.settings.draft or draft is None:
            return 0, 0
        parts = stored_parts(draft)
        each = sum(
            token_bytes(mixer, self.settings.draft_cache_mode)
            for layer in draft.architecture.layers
            for mixer in layer.mixers
            if isinstance(mixer, Attention)
        )
        return sum(parts.layers) + parts.head + tied_head_bytes(draft), each * self.resolved.tokens

    @property
    def ahead(self) -> int:
        """Bytes that the first card gets before the model: encoders, and the model that drafts."""
        return sum(self.draft_bytes) + (self.stored.towers if self.settings.vision else 0)

    def kept(self, first: int, last: int) -> tuple[Kept, ...]:
        """What layers keep; those with a window keep all tokens."""
        return tuple(
            Kept(
                "kv_cache",
                self.resolved.tokens,
                "tokens",
                token_bytes(mixer, self.settings.cache_mode, self.ranks),
            )
            for layer in self.architecture.layers[first:last]
            for mixer in layer.mixers
            if isinstance(mixer, Attention) and mixer.keeps_cache
        )

    @cached_property
    def flash_attention(self) -> bool:
        """Whether flash attention is used: it needs Ampere."""
        if self.settings.flash_attention is not None:
            return self.settings.flash_attention
        majors = [device.compute_capability.partition(".")[0] for device in self.devices]
        return all(not major.isdigit() or int(major) >= _FLASH_MAJOR for major in majors)

    def work(self, layer: Layer) -> tuple[int, int]:
        """Bytes of each token of a part of a prompt: expected, and most."""
        plain = not self.flash_attention
        scores = plain and not self.settings.era.kernels
        return work_of(layer, self.architecture.hidden_size, self.resolved, self.ranks, scores, plain)

    def weights(self, first: int, last: int) -> int:
        """Bytes of layers."""
        return sum(self.stored.layers[first:last])

    @cached_property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Which layers each card holds; the head counts as one more."""
        chunk = self.resolved.chunk
        layers = [
            Block(
                self.weights(at, at + 1) + sum(kept.bytes for kept in self.kept(at, at + 1)),
                chunk * self.work(layer)[0],
            )
            for at, layer in enumerate(self.architecture.layers)
        ]
        limits = [self.limit(at) for at in range(len(self.devices))]
        return layer_ranges(self.ahead, layers, self.head, limits, self.ranks)

    def limit(self, at: int) -> int | None:
        """Bytes that a card may hold of layers."""
        settings = self.settings
        found = room(self.devices[at], at, settings.gpu_split, settings.autosplit_reserve, 0)
        if found is None:
            return None
        return found - self.each_card - (0 if settings.gpu_split is not None else _LEAST_FREE)
