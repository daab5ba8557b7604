"""What an optimizer is asked with, and what it answers: states that stay, and what a step needs beyond them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from willfit.engines.versions import Version
from willfit.errors import BadInput
from willfit.quantities import DTYPE_BYTES
from willfit.training.parameters import Parameter

#: Where a state lives. `managed` is CUDA's unified memory: it counts on the device until it is evicted, and in no
#: counter of torch.
Place = Literal["device", "host", "managed", "disk"]

#: When a state appears.
FIRST_STEP, CONSTRUCTION = "first step", "construction"


@dataclass(frozen=True, slots=True)
class StateBytes:
    """One kind of state over all parameters that have it.

    Attributes
    ----------
    kind
        `exp_avg`, `exp_avg_sq`, `momentum`, `master`, `absmax`, `projector`, `step`, ...
    dtype
        In which it is kept.
    bytes
        All of it on a rank.
    tensors
        How many tensors it is; an allocator rounds each.
    place
        Where it lives.
    formula
        How the bytes come about (`formulas.py`).
    pinned
        On the host: page-locked.
    since
        When it appears.
    """

    kind: str
    dtype: str
    bytes: int
    tensors: int
    place: Place
    formula: str
    pinned: bool = False
    since: str = FIRST_STEP


@dataclass(frozen=True, slots=True)
class Transient:
    """Bytes that a step takes and gives back, beyond states and gradients.

    Attributes
    ----------
    bytes, low, high
        The likely amount and its bounds, which are equal where the source fixes it.
    formula
        How the bytes come about (`formulas.py`).
    """

    bytes: int
    low: int
    high: int
    formula: str

    @classmethod
    def exactly(cls, size: int, formula: str) -> Transient:
        """An amount that the source fixes."""
        return cls(size, size, size, formula)


NOTHING = Transient.exactly(0, "0 B")


@dataclass(frozen=True, slots=True)
class OptimizerMemory:
    """What an optimizer keeps and needs on one rank.

    Attributes
    ----------
    name
        Of the rule that answered.
    implementation
        `foreach`, `fused`, `for-loop`, or how else it runs.
    states
        What stays between steps.
    step
        What an ordinary step needs beyond states and gradients.
    update
        The same for a step in which projections or preconditioners are renewed; None if there is none.
    gradients
        `all` of them are there at the step, or only those of `one parameter`, since it steps within the backward pass,
        or of `one block` of layers.
    trained
        Share of the parameters that get gradients at a time, where that is not all of them.
    reference
        Where the rule stands.
    notes
        What the reader should know.
    """

    name: str
    implementation: str
    states: tuple[StateBytes, ...]
    step: Transient = NOTHING
    update: Transient | None = None
    gradients: Literal["all", "one parameter", "one block"] = "all"
    trained: float = 1.0
    reference: str = ""
    notes: tuple[str, ...] = ()

    def held(self, place: Place = "device") -> int:
        """Bytes of states in a place."""
        return sum(state.bytes for state in self.states if state.place == place)

    @property
    def worst(self) -> Transient:
        """The larger one of an ordinary step and one with renewal."""
        if self.update is None or self.step.bytes > self.update.bytes:
            return self.step
        return self.update


@dataclass(frozen=True, slots=True)
class Job:
    """What an optimizer works on.

    Attributes
    ----------
    parameters
        Trained parameters as the optimizer sees them on a rank, in the model's order.
    weights
        Dtype of a parameter.
    implementation
        `foreach`, `fused` or `for-loop`; None for the library's default.
    options
        Other options by the library's names.
    versions
        Of libraries (`torch`, `bitsandbytes`, ...), newest where none is said.
    pieces
        Parameters are flat pieces whose shapes are lost (`flat`), rows of the parameters (`rows`), or `whole`.
    """

    parameters: tuple[Parameter, ...]
    weights: Callable[[Parameter], str]
    implementation: str | None
    options: Mapping[str, object]
    versions: Mapping[str, Version]
    pieces: Literal["whole", "flat", "rows"] = "whole"

    def width(self, parameter: Parameter) -> int:
        """Bytes of one element of a parameter."""
        return DTYPE_BYTES[self.weights(parameter)]

    def size(self, parameter: Parameter) -> int:
        """Bytes of one copy of a parameter."""
        return parameter.elements // parameter.copies * DTYPE_BYTES[self.weights(parameter)]

    def number(self, key: str, default: float) -> float:
        """An option that is a number."""
        value = self.options.get(key, default)
        try:
            return float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise BadInput(f"the optimizer's option {key} is {value!r}", "give a number") from None

    def count(self, key: str, default: int) -> int:
        """An option that is a whole number."""
        return int(self.number(key, default))

    def flag(self, key: str, default: bool = False) -> bool:
        """An option that is on or off."""
        value = self.options.get(key, default)
        if isinstance(value, str):
            return value.strip().lower() in ("true", "1", "yes", "on")
        return bool(value)

    def only(self, parameters: Iterable[Parameter]) -> Job:
        """The same for some of the parameters."""
        return replace(self, parameters=tuple(parameters))


def state(
    job: Job,
    kind: str,
    dtype: str | None = None,
    parameters: Sequence[Parameter] | None = None,
    place: Place = "device",
    since: str = FIRST_STEP,
    pinned: bool = False,
) -> list[StateBytes]:
    """A state of as many elements as the parameters have, one record a dtype.

    Parameters
    ----------
    job
        What the optimizer works on.
    kind
        Of the state.
    dtype
        In which it is kept; None for that of the parameter.
    parameters
        Which have it; None for all.
    """
    elements: dict[str, int] = {}
    tensors: dict[str, int] = {}
    for parameter in job.parameters if parameters is None else parameters:
        kept = dtype or job.weights(parameter)
        elements[kept] = elements.get(kept, 0) + parameter.elements
        tensors[kept] = tensors.get(kept, 0) + parameter.copies
    return [
        StateBytes(
            kind,
            kept,
            count * DTYPE_BYTES[kept],
            tensors[kept],
            place,
            f"{count} elements x {DTYPE_BYTES[kept]} B of {kind} ({kept})",
            pinned,
            since,
        )
        for kept, count in elements.items()
    ]


def counted(
    kind: str, dtype: str, elements: int, tensors: int, place: Place = "device", words: str = "values"
) -> list[StateBytes]:
    """A state whose elements were counted; nothing if there are none."""
    if not elements:
        return []
    width = DTYPE_BYTES[dtype]
    formula = f"{elements} {words} x {width} B of {kind} ({dtype})"
    return [StateBytes(kind, dtype, elements * width, tensors, place, formula)]


def steps_counter(job: Job, place: Place, kind: str = "step") -> list[StateBytes]:
    """A counter of steps for each tensor, in float32 (torch `optim/optimizer.py: _get_scalar_dtype`)."""
    tensors = sum(parameter.copies for parameter in job.parameters)
    return counted(kind, "fp32", tensors, tensors, place, "tensors")
