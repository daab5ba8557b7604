"""What metadata is made from: the model as its config describes it, and the tensors as they are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from willfit.architectures.mixers import Mixer
from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config
from willfit.conversion.layers import Written
from willfit.conversion.record import Entry

#: A value of a GGUF header: one for the model, or one for each layer.
Value = int | float | bool | str | tuple[Any, ...]
Keys = dict[str, Value]


@dataclass(frozen=True)
class Source:
    """A model on its way into a header.

    Attributes
    ----------
    name
        llama.cpp's name of the architecture.
    config
        The language model's config, over what lies around it.
    outer
        The whole config.
    architecture
        The model.
    written
        Its tensors as they are written.
    """

    name: str
    config: Config
    outer: Config
    architecture: Architecture
    written: Written

    @cached_property
    def mixers(self) -> tuple[tuple[Mixer, ...], ...]:
        """What mixes tokens in each layer, modules that draft included."""
        own = tuple(layer.mixers for layer in self.architecture.layers)
        drafts = self.written.drafts
        modules = [layer.mixers for layer in self.architecture.mtp_layers]
        if drafts and len(modules) != drafts:  # several layers of the checkpoint are one module
            modules = [tuple(mixer for mixers in modules for mixer in mixers)] * drafts
        return own + tuple(modules[:drafts])

    @cached_property
    def shapes(self) -> tuple[dict[str, tuple[int, ...]], ...]:
        """Dimensions of each layer's tensors by name, the same object for layers that are alike."""
        made: dict[int, dict[str, tuple[int, ...]]] = {}
        for layer in self.written.layers:
            if id(layer) not in made:
                made[id(layer)] = {entry.name: entry.ne for entry in layer}
        return tuple(made[id(layer)] for layer in self.written.layers)

    def widths(self, name: str) -> tuple[int, ...]:
        """The inputs of a tensor in each layer; 0 where there is none."""
        return tuple(shape[name][0] if name in shape else 0 for shape in self.shapes)

    def width(self, name: str, axis: int = 0) -> int:
        """One dimension of a tensor in the first layer that has it; 0 if there is none."""
        ne = next((shape[name] for shape in self.shapes if name in shape), ())
        return ne[axis] if axis < len(ne) else 0

    def outside(self, name: str) -> Entry | None:
        """A tensor outside of the layers."""
        return next((entry for entry in self.written.outside if entry.name == name), None)


def scalar_or_list(values: Sequence[int]) -> int | tuple[int, ...]:
    """One number if all layers have it, else all of them."""
    return tuple(values) if len(set(values)) > 1 else first_positive(values)


def first_positive(values: Iterable[int]) -> int:
    """The first of these that is not 0."""
    return next((value for value in values if value), 0)
