"""One optimizer step as a sequence of instants: what is alive at each, and which is the fullest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from willfit.training.sharding.base import Communication, Pass, Unit
from willfit.training.tape import Moment, Replay

#: What the instant at which parameters are updated is called.
OPTIMIZER_STEP = "optimizer step"

#: What instants of micro-batches before the last are called.
_EARLIER = "first micro-batch, ", "micro-batch between, "


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the model that runs as a whole: embedding, a layer, or head and loss.

    Attributes
    ----------
    name
        What to call it.
    replay
        What it keeps and needs.
    unit
        Its parameters.
    checkpointed
        Only its input is kept, and it runs again in the backward pass.
    selective
        What is costly to compute is kept as well.
    offloaded
        What is kept of it lies on the host until it is needed.
    clings
        Its input and the gradient of that stay from its backward pass to the end of the whole one.
    head
        It is head and loss.
    follows
        It is checkpointed together with the piece before it, so that not even its input is kept.
    reenters
        Its first run, under a checkpoint, makes no graph; if it does, what hangs on that stays.
    """

    name: str
    replay: Replay
    unit: Unit
    checkpointed: bool = False
    selective: bool = False
    offloaded: bool = False
    clings: bool = False
    head: bool = False
    follows: bool = False
    reenters: bool = False

    @property
    def lingering(self) -> int:
        """Bytes that hang on its graph until all of the backward pass is over; saved tensors' hooks miss them."""
        return 0 if self.checkpointed and (self.reenters or self.offloaded) else self.replay.lingering

    @property
    def cached(self) -> int:
        """Bytes beside `kept` that are held until the forward pass is over."""
        whole = not (self.checkpointed or self.selective or self.offloaded or self.follows)
        return self.replay.cached_only if whole else self.replay.cached

    @property
    def kept(self) -> int:
        """Bytes kept of it from the forward to the backward pass, on the device."""
        if self.offloaded:
            return 0
        if self.checkpointed:
            # torch `utils/checkpoint.py: _checkpoint_hook` packs what is saved, not what is an attribute.
            lingering = self.lingering
            if self.follows:
                return lingering
            return lingering + (self.replay.selected if self.selective else self.replay.input_bytes)
        return self.replay.kept


@dataclass(frozen=True, slots=True)
class Instant:
    """What is alive at one instant, beside weights and optimizer states.

    Attributes
    ----------
    name
        `backward of layer 31, mlp: mul`.
    kept
        Activations kept for the backward pass, by all pieces.
    below
        The part of these that pieces keep which do not run.
    passing
        Values and gradients on their way, and temporaries.
    gradients
        Of parameters.
    communication
        Gathered weights and buffers.
    head
        Whether head and loss run, so that what passes is logits for the most part.
    """

    name: str
    kept: int = 0
    passing: int = 0
    gradients: int = 0
    communication: int = 0
    head: bool = False
    below: int = 0

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.kept + self.passing + self.gradients + self.communication


def instants(
    pieces: Sequence[Piece],
    sharing: Communication,
    accumulates: bool = False,
    steps_in_backward: bool = False,
    in_flight: float = 1,
    transient: int = 0,
    loss_inside: bool = False,
) -> list[Instant]:
    """Every instant at which memory can peak between two optimizer steps.

    Parameters
    ----------
    pieces
        In the order of the forward pass.
    sharing
        What data-parallel ranks make of weights and gradients.
    accumulates
        Gradients of earlier micro-batches are there from the beginning.
    steps_in_backward
        A parameter is updated and its gradient dropped as soon as it is made.
    in_flight
        Micro-batches whose activations are kept at once; chunks of interleaved stages are parts of one.
    transient
        What the optimizer needs while it steps, beside states and gradients.
    loss_inside
        The loss is part of the model's forward, with which autocast ends.
    """
    kept = int((in_flight - 1) * sum(piece.kept for piece in pieces))
    found: list[Instant] = []
    for count, earlier in enumerate(sharing.earlier):
        prefix = _EARLIER[count]
        found += _forward(pieces, sharing.forward, kept, earlier.held, loss_inside, prefix)
        found += _backward(pieces, earlier, kept, prefix)[0]
    left = () if (accumulates and not sharing.earlier) or steps_in_backward else sharing.left
    resident = sharing.whole
    if not sharing.earlier and (accumulates or sharing.buffered):
        resident = sharing.gradients
    last = Pass(resident, sharing.backward, sharing.joined, left)
    found += _forward(pieces, sharing.forward, kept, resident, loss_inside)
    backward, held = _backward(pieces, last, kept, lingering=sharing.lingering)
    found += backward
    if not steps_in_backward:
        if sharing.before_step:
            found.append(Instant("before the optimizer step", 0, held, 0, sharing.before_step))
        gradients = 0 if sharing.frees_gradients else sharing.gradients
        found.append(Instant(OPTIMIZER_STEP, 0, transient + held, gradients, sharing.step))
    return found


def _forward(
    pieces: Sequence[Piece],
    gathered: Sequence[int],
    kept: int,
    gradients: int,
    loss_inside: bool,
    prefix: str = "",
) -> list[Instant]:
    """Instants of a forward pass."""
    found = []
    cached = 0
    for index, piece in enumerate(pieces):
        entering = 0 if piece.kept and not piece.checkpointed else piece.replay.input_bytes
        name = f"{prefix}forward of {piece.name}"
        passing = entering + (0 if piece.head and not loss_inside else cached)
        moment = piece.replay.forward
        found.append(_instant(name, moment, kept, passing, gradients, gathered[index], piece.head))
        kept += piece.kept
        cached += piece.cached
    if returned := pieces[-1].replay.returned:
        below = kept - pieces[-1].kept
        found.append(
            Instant(f"{prefix}outputs in float32", kept, returned, gradients, head=True, below=below)
        )
    return found


def _backward(
    pieces: Sequence[Piece], sharing: Pass, kept: int, prefix: str = "", lingering: Sequence[int] = ()
) -> tuple[list[Instant], int]:
    """Instants of a backward pass, and bytes that are held when it is over."""
    found: list[Instant] = []
    kept += sum(piece.kept for piece in pieces)
    gradients, held, clinging, shared, waiting = sharing.held, 0, 0, 0, 0
    for index in range(len(pieces) - 1, -1, -1):
        piece, sent = pieces[index], sharing.backward[index] + waiting
        kept -= piece.kept
        own = piece.checkpointed and not piece.offloaded and not piece.follows
        below = kept + (piece.replay.input_bytes - piece.replay.input_kept if own else 0)
        # What hangs on the graph of a first run is there beside what the second one keeps.
        below += piece.lingering if piece.checkpointed else 0
        # The gradient of its output is that of the next piece's input, which may cling: it is counted once.
        passing = held + clinging - shared
        arriving = (piece.replay.output_bytes if piece.reenters else piece.replay.waiting) + passing
        for one in _running_again(pieces, index):
            ran = pieces[one].replay
            moment = ran.rerun if one == index and not piece.reenters else ran.forward
            name = f"{prefix}recompute of {pieces[one].name}"
            before = below + _before(pieces, one)
            found.append(_instant(name, moment, before, arriving, gradients, sent, False))
        below += _before(pieces, index)
        moment = (piece.checkpointed and piece.replay.again) or piece.replay.backward
        name = f"{prefix}backward of {piece.name}"
        # What reentered has its result until its backward pass is over (`utils/checkpoint.py: CheckpointFunction`).
        result = piece.replay.output_bytes if piece.checkpointed and piece.reenters else 0
        found.append(_instant(name, moment, below, passing + result, gradients, sent, piece.head))
        if sharing.joined and sharing.joined[index]:
            passing += piece.replay.input_bytes
            name = f"{prefix}gradient of {piece.name}, put together"
            buffers = sharing.joined[index] + waiting
            found.append(Instant(name, kept, passing, gradients, buffers, below=kept))
        held += piece.replay.held + piece.lingering
        shared = piece.replay.input_bytes if piece.clings else 0
        clinging += 2 * shared
        gradients += sharing.left[index] if sharing.left else 0
        waiting += lingering[index] if lingering else 0
    return found, held


def _running_again(pieces: Sequence[Piece], index: int) -> range:
    """Pieces that are computed again before the backward pass of one: all of its checkpoint, before the last of it."""
    if not pieces[index].checkpointed or (index + 1 < len(pieces) and pieces[index + 1].follows):
        return range(0)
    first = index
    while pieces[first].follows:
        first -= 1
    return range(first, index + 1)


def _before(pieces: Sequence[Piece], index: int) -> int:
    """Bytes that pieces before one keep as well, because they ran again with it."""
    found = 0
    while pieces[index].follows:
        index -= 1
        found += pieces[index].replay.kept
    return found


def _instant(
    name: str, moment: Moment, kept: int, passing: int, gradients: int, communication: int, head: bool
) -> Instant:
    text = f"{name}, {moment.operation}" if moment.operation else name
    return Instant(
        text,
        kept + moment.kept,
        passing + moment.passing,
        gradients + moment.gradients,
        communication,
        head,
        kept,
    )


def fullest(found: Sequence[Instant]) -> Instant:
    """The instant at which most is alive."""
    return max(found, key=lambda instant: instant.bytes)
