"""One optimizer step as a sequence of instants: what is alive at each, and which is the fullest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from willfit.training.tape import Moment, Replay


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the model that runs as a whole: embedding, a layer, or head and loss.

    Attributes
    ----------
    name
        What to call it.
    replay
        What it keeps and needs.
    checkpointed
        Only its input is kept, and it runs again in the backward pass.
    offloaded
        What is kept of it lies on the host until it is needed.
    """

    name: str
    replay: Replay
    checkpointed: bool = False
    offloaded: bool = False

    @property
    def kept(self) -> int:
        """Bytes kept of it from the forward to the backward pass, on the device."""
        if self.offloaded:
            return 0
        return self.replay.input_bytes if self.checkpointed else self.replay.kept


@dataclass(frozen=True, slots=True)
class Instant:
    """What is alive at one instant, beside weights and optimizer states.

    Attributes
    ----------
    name
        `backward of layer 31, mlp: mul`.
    kept
        Activations kept for the backward pass, by all pieces.
    passing
        Values and gradients on their way, and temporaries.
    gradients
        Of parameters.
    index
        Number of the piece that runs; -1 for none.
    """

    name: str
    kept: int = 0
    passing: int = 0
    gradients: int = 0
    index: int = -1

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.kept + self.passing + self.gradients


def instants(
    pieces: Sequence[Piece], accumulates: bool = False, steps_in_backward: bool = False
) -> list[Instant]:
    """Every instant at which memory can peak between two optimizer steps.

    Parameters
    ----------
    pieces
        In the order of the forward pass.
    accumulates
        Gradients of earlier micro-batches are there from the beginning.
    steps_in_backward
        A parameter is updated and its gradient dropped as soon as it is made.
    """
    total = sum(piece.replay.gradients for piece in pieces)
    resident = total if accumulates else 0
    found: list[Instant] = []
    kept = 0
    for index, piece in enumerate(pieces):
        entering = 0 if piece.kept and not piece.checkpointed else piece.replay.input_bytes
        found.append(
            _instant(f"forward of {piece.name}", piece.replay.forward, kept, entering, resident, index)
        )
        kept += piece.kept
    gradients = resident
    for index in range(len(pieces) - 1, -1, -1):
        piece = pieces[index]
        kept -= piece.kept
        below = kept + (piece.replay.input_bytes if piece.checkpointed else 0)
        if piece.checkpointed:
            arriving = piece.replay.output_bytes
            found.append(
                _instant(
                    f"recompute of {piece.name}", piece.replay.forward, below, arriving, gradients, index
                )
            )
        found.append(_instant(f"backward of {piece.name}", piece.replay.backward, below, 0, gradients, index))
        if not accumulates and not steps_in_backward:
            gradients += piece.replay.gradients
    if not steps_in_backward:
        found.append(Instant("optimizer step", 0, 0, total))
    return found


def _instant(name: str, moment: Moment, kept: int, passing: int, gradients: int, index: int) -> Instant:
    text = f"{name}, {moment.operation}" if moment.operation else name
    return Instant(text, kept + moment.kept, passing + moment.passing, gradients + moment.gradients, index)


def fullest(found: Sequence[Instant]) -> Instant:
    """The instant at which most is alive."""
    return max(found, key=lambda instant: instant.bytes)


def with_transient(instant: Instant, size: int) -> Instant:
    """The same instant with more on its way."""
    return replace(instant, passing=instant.passing + size)
