"""What sharing adds to the timeline of a step: buffers at each piece, and what stays of weights and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unit:
    """The parameters of one piece of the model, before data-parallel ranks share them.

    Attributes
    ----------
    bytes
        As they lie in memory.
    gathered_bytes
        As they are put together for a product: in the compute dtype, frozen quantized ones as they lie.
    trained
        Elements that get gradients.
    gradient_bytes
        Of their gradients, as the backward pass makes them.
    largest
        Elements of the largest parameter.
    experts
        Of the trained elements, those of routed experts: fewer ranks hold the same of these.
    borrowed_bytes
        Of gradients that it makes of the first unit's parameters: a head whose matrix is the token table.
    """

    bytes: int
    gathered_bytes: int
    trained: int
    gradient_bytes: int
    largest: int = 0
    experts: int = 0
    borrowed_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Wrapping:
    """Which parameters FSDP takes together as a unit.

    Attributes
    ----------
    mixed
        Units hold trained parameters beside frozen ones. A unit of FSDP1 is one flat parameter, whose gradient has
        room for all of it (`fully_sharded_data_parallel.py`: "constraints when freezing parameters").
    ends_apart
        The embedding is a unit, and final norm and head are another; else they are the root unit.
    keeps_last
        The last layer is not freed between its forward and its backward pass.
    loss_inside
        The wrapped model gives the loss, so that the backward pass of the loss finds the last layer gathered already.
    empty_root
        The root unit holds nothing: with FSDP2 the loss's backward pass then fetches nothing ahead. So it is if ends
        are apart, or together in a unit of their own.
    """

    mixed: bool = False
    ends_apart: bool = False
    keeps_last: bool = False
    loss_inside: bool = False
    empty_root: bool = False


#: Layers, and the rest as the root unit.
BLOCKS = Wrapping()


def joined(one: Unit, other: Unit) -> Unit:
    """Two units that run, and are gathered, together."""
    return Unit(
        one.bytes + other.bytes,
        one.gathered_bytes + other.gathered_bytes,
        one.trained + other.trained,
        one.gradient_bytes + other.gradient_bytes,
        max(one.largest, other.largest),
        one.experts + other.experts,
        one.borrowed_bytes + other.borrowed_bytes,
    )


@dataclass(frozen=True, slots=True)
class Pass:
    """The forward and the backward pass of a micro-batch after which gradients are not shared yet.

    Attributes
    ----------
    held
        Bytes of gradients that are there when it begins.
    backward, joined, left
        As in `Communication`.
    """

    held: int
    backward: tuple[int, ...]
    joined: tuple[int, ...]
    left: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Communication:
    """What sharing makes of weights and gradients, and the buffers that it needs.

    Attributes
    ----------
    weights, gradients
        Bytes that stay on a rank: of weights, and of gradients once the backward pass is over.
    state_elements
        Elements whose optimizer states the rank keeps.
    master
        Bytes of a separate copy of the weights, where the sharing scheme itself keeps one.
    resident
        Buffers that are there all the time.
    forward, backward
        Buffers while each piece runs: gathered weights, and what is sent.
    left
        Bytes of gradients that each piece leaves behind; fewer than none where whole ones become shares.
    lingering
        Bytes of buffers that each piece leaves until the backward pass is over.
    joined
        Gathered weights and buffers at the end of each piece's backward pass, while its gradient is put together, the
        gradient's parts among them; 0 where nothing is.
    earlier
        Micro-batches before the last of a step whose gradients wait whole for that, the first and one of the others;
        none if gradients are shared at once. All else is the last one's.
    step
        Buffers while the optimizer steps.
    host
        Bytes of the rank's weights and gradients that lie on the host instead.
    before_step
        Gradients and buffers just before it.
    buffered
        Gradients have a buffer that is there from the beginning.
    frees_gradients
        Gradients are freed before it, for the optimizer works on other copies.
    formula, reference
        Of the buffers, for the reader.
    """

    weights: int
    gradients: int
    state_elements: int
    resident: int
    forward: tuple[int, ...]
    backward: tuple[int, ...]
    left: tuple[int, ...]
    joined: tuple[int, ...] = ()
    master: int = 0
    step: int = 0
    host: int = 0
    lingering: tuple[int, ...] = ()
    earlier: tuple[Pass, ...] = ()
    before_step: int = 0
    buffered: bool = False
    frees_gradients: bool = False
    formula: str = ""
    reference: str = ""

    @property
    def whole(self) -> int:
        """Bytes of gradients that wait whole for the last micro-batch; 0 if they are shared at once."""
        return sum(self.earlier[0].left) if self.earlier else 0


def alone(units: Sequence[Unit]) -> Communication:
    """A rank that shares nothing."""
    return Communication(
        weights=sum(unit.bytes for unit in units),
        gradients=sum(unit.gradient_bytes for unit in units),
        state_elements=sum(unit.trained for unit in units),
        resident=0,
        forward=(0,) * len(units),
        backward=(0,) * len(units),
        left=_left(units),
    )


def _left(units: Sequence[Unit]) -> tuple[int, ...]:
    """Gradients that each piece leaves; that of a table which is also the head's matrix comes from there first."""
    left = [unit.gradient_bytes + unit.borrowed_bytes for unit in units]
    if left:
        left[0] -= sum(unit.borrowed_bytes for unit in units)
    return tuple(left)
