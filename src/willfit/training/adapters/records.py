"""What an adapter adds: trained parameters, tensors that are kept beside them, and what its forward does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from willfit.training.adapters.forward import AdapterForward
from willfit.training.adapters.modules import Module
from willfit.training.parameters import Parameter

#: Where a kept tensor lies: on the device, or on the host until it is used.
Place = Literal["device", "host"]


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor that is kept and not trained.

    Attributes
    ----------
    name, shape, copies
        As of a parameter.
    dtype
        `float32`, `int64`, ...; `model` and `adapter` for the dtype of the model's weights or of the adapter.
    place
        See `Place`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    copies: int = 1
    place: Place = "device"

    @property
    def elements(self) -> int:
        """Elements of all copies."""
        return prod(self.shape) * self.copies


@dataclass(frozen=True, slots=True)
class Added:
    """What one module gets, per copy: names and shapes of what is trained, and what is kept beside it."""

    trained: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    held: tuple[Held, ...] = ()


@dataclass(frozen=True, slots=True)
class Adapted:
    """A model with an adapter.

    Attributes
    ----------
    added
        Parameters of the adapter, in `dtype`.
    own
        Parameters of the model that are trained too, in its own dtype: copies for `modules_to_save`, biases.
    held
        Tensors that the adapter keeps besides.
    modules
        Wrapped modules.
    forwards
        What the forward of a wrapped module does, by its name in the architecture (`{layer}` inside).
    dtype
        Of `added`.
    virtual_tokens, prefix_tokens
        Tokens that are put in front of every sequence, and of keys and values only.
    prompted_layers, prompt_length
        How many of the last layers have a prompt of their own, and tokens of each (LLaMA-Adapter).
    extra_layers
        Whole layers that are added (LLaMA Pro).
    notes
        What a reader should know.
    """

    added: tuple[Parameter, ...]
    own: tuple[Parameter, ...] = ()
    held: tuple[Held, ...] = ()
    modules: tuple[Module, ...] = ()
    forwards: Mapping[str, AdapterForward] = field(default_factory=dict)
    dtype: str = "float32"
    virtual_tokens: int = 0
    prefix_tokens: int = 0
    prompted_layers: int = 0
    prompt_length: int = 0
    extra_layers: int = 0
    notes: tuple[str, ...] = ()

    @property
    def trainable(self) -> tuple[Parameter, ...]:
        """All that is trained."""
        return (*self.added, *self.own)

    @property
    def parameters(self) -> int:
        """How many parameters are trained."""
        return sum(parameter.elements for parameter in self.trainable)
