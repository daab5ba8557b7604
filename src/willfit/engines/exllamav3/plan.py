"""What each card holds: layers in order until one is full, or a part of every layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from willfit.architectures.model import Architecture
from willfit.engines.base import Subject
from willfit.engines.exllamav3.cache import kept_by
from willfit.engines.exllamav3.settings import Resolved, Settings, resolve
from willfit.engines.exllamav3.work import Work
from willfit.engines.layer_split import Block, Kept, Stored, layer_ranges, room, stored_parts, tied_head_bytes
from willfit.engines.sharding import Sharding
from willfit.hardware.device import Device
from willfit.quantities import GIB

#: Free on cards for which nothing is said (`model/model.py: load_gen`).
_RESERVE = GIB // 2


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
        found = stored_parts(self.subject, Sharding(self.ranks))
        return replace(found, head=found.head + tied_head_bytes(self.subject, self.ranks))

    @cached_property
    def packed(self) -> bool:
        """Whether matrices are quantized."""
        return self.subject.recipe.method == "exl3"

    @cached_property
    def work(self) -> Work:
        """How layers compute."""
        tokens = min(self.resolved.chunk, self.resolved.length)
        return Work(
            self.architecture.hidden_size, tokens, self.resolved, self.settings.era, self.packed, self.ranks
        )

    @cached_property
    def on_processor(self) -> tuple[int, ...]:
        """Bytes of each layer's experts that run on the processor."""
        left, found = self.settings.cpu_moe_offload_layers, []
        for size in self.stored.experts:
            moved = bool(size) and left > 0
            left -= moved
            found.append(size if moved else 0)
        return tuple(found)

    @cached_property
    def ahead(self) -> int:
        """Bytes of encoders and of the model that drafts, which the first card gets before anything else."""
        encoders = self.stored.towers if self.settings.vision else 0
        return encoders + self.draft_weights + sum(kept.bytes for kept in self.draft_kept)

    @cached_property
    def draft_weights(self) -> int:
        """Bytes of the model that drafts, or of the modules that come with the model."""
        draft = self.subject.draft
        if self.settings.draft_mode == "mtp":
            return self.stored.mtp
        if self.settings.draft_mode == "model" and draft is not None:
            parts = stored_parts(draft)
            return sum(parts.layers) + parts.head + tied_head_bytes(draft)
        return 0

    @cached_property
    def draft_kept(self) -> tuple[Kept, ...]:
        """What the layers that draft keep."""
        draft, settings = self.subject.draft, self.settings
        layers = self.architecture.mtp_layers if settings.draft_mode == "mtp" else ()
        resolved = self.resolved
        if settings.draft_mode == "model" and draft is not None:
            layers, resolved = draft.architecture.layers, resolve(settings, draft.architecture)
            resolved = replace(resolved, tokens=self.resolved.tokens)
        return tuple(
            kept
            for layer in layers
            for kept in kept_by(layer, resolved, settings.era, bits=resolved.draft_bits)
        )

    def kept(self, first: int, last: int) -> tuple[Kept, ...]:
        """What layers keep."""
        return tuple(
            kept
            for layer in self.architecture.layers[first:last]
            for kept in kept_by(layer, self.resolved, self.settings.era, self.ranks, self.resolved.bits)
        )

    def weights(self, first: int, last: int) -> int:
        """Bytes of layers on cards."""
        return sum(self.stored.layers[first:last]) - sum(self.on_processor[first:last])

    @cached_property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Which layers each card holds; the head counts as one more."""
        layers = [
            Block(
                self.weights(at, at + 1) + sum(kept.bytes for kept in self.kept(at, at + 1)),
                self.work.peak(layer),
            )
            for at, layer in enumerate(self.architecture.layers)
        ]
        limits = [self.limit(at) for at in range(len(self.devices))]
        return layer_ranges(self.ahead, layers, self.stored.head, limits, self.ranks)

    def limit(self, at: int) -> int | None:
        """Bytes that a card may hold of the model."""
        settings = self.settings
        return room(self.devices[at], at, settings.gpu_split, settings.autosplit_reserve, _RESERVE)
