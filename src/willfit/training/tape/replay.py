"""Walking a tape forward and back: what is kept in between, and where memory peaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace

from willfit.training.tape.tape import Operation, Tape, Value

#: Which operations' outputs selective checkpointing keeps.
Selection = Callable[[Sequence[Operation]], list[Operation]]


@dataclass(frozen=True, slots=True)
class Moment:
    """What is allocated at the fullest moment of a pass, beside what others hold.

    Attributes
    ----------
    operation
        What runs then: `mlp: mul`.
    kept
        Bytes kept for the backward pass.
    passing
        Values and gradients on their way, and temporaries.
    gradients
        Gradients of parameters.
    """

    operation: str = ""
    kept: int = 0
    passing: int = 0
    gradients: int = 0

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.kept + self.passing + self.gradients


@dataclass(frozen=True, slots=True)
class Replay:
    """A part of a model, replayed.

    Attributes
    ----------
    input_bytes, output_bytes
        What it is given and what it gives.
    kept
        Bytes kept for the backward pass, the input among them if the derivative needs it.
    kept_by_module
        The same by part of the layer.
    forward, backward
        The fullest moments. The input itself is not counted in `forward` unless it is kept, the gradient of the
        output is counted in `backward`.
    selected
        Bytes kept if only the input and what is costly to compute are, the rest being computed again.
    gradients
        Bytes of the gradients of its parameters.
    held
        Bytes of values that its caller holds through the backward pass.
    lingering
        Bytes of what is kept that go with the graph only.
    input_kept
        Bytes of its input that are among what it keeps.
    cached, cached_only
        Bytes that are held until the whole forward pass is over; and those of them that are not kept.
    returned
        Bytes of what the caller is given when it is, as it is and in float32.
    again
        The fullest moment backward where it all runs a second time for that: what hangs on the graph hangs on that of
        the first run, and the second run's goes at once. None if nothing hangs there.
    rerun
        The fullest moment of a forward pass that ends where the last value is kept, as checkpoints that do not reenter
        autograd run it again (torch `utils/checkpoint.py: set_checkpoint_early_stop`).
    waiting
        Bytes of gradients that are there when the backward pass first needs what was kept: such checkpoints run again
        then.
    """

    input_bytes: int
    output_bytes: int
    kept: int
    selected: int
    kept_by_module: dict[str, int]
    forward: Moment
    backward: Moment
    gradients: int
    held: int = 0
    lingering: int = 0
    cached: int = 0
    cached_only: int = 0
    returned: int = 0
    again: Moment | None = None
    input_kept: int = 0
    rerun: Moment = Moment()
    waiting: int = 0

    def kept_as_selected(self) -> Replay:
        """The same where only what is selected is kept, and the rest is made anew without room of its own."""
        backward = replace(self.backward, kept=min(self.backward.kept, self.selected))
        forward = replace(self.forward, kept=min(self.forward.kept, self.selected))
        return replace(self, kept=self.selected, forward=forward, backward=backward, cached=0, cached_only=0)


def replay(
    tape: Tape,
    given: Value,
    result: Value,
    accumulates: bool = False,
    selects: Selection | None = None,
    held: int = 0,
) -> Replay:
    """Run a tape forward and back.

    Parameters
    ----------
    tape
        What runs.
    given, result
        Its input, which its caller holds, and its output.
    accumulates
        Gradients of parameters exist already, so that new ones are added to them and given back.
    selects
        Says of each operation whether selective checkpointing keeps its outputs.
    held
        Bytes of values that the caller holds through the backward pass.
    """
    keepers = _keepers(tape)
    cached = _cached(tape)
    by_module = _kept_by_module(tape)
    total = sum(by_module.values())
    forward, rerun = _forward(tape, given, result, keepers, cached)
    backward, waiting = _backward(tape, result, keepers, total, accumulates, held)
    gradients = sum(operation.weight_bytes for operation in tape.operations)
    lingering = sum(tape.sizes[storage] for storage in _lingering(tape))
    again = _again(tape, result, accumulates, held) if lingering else None
    return Replay(
        given.bytes,
        result.bytes,
        total,
        given.bytes + _selected(tape, given, selects),
        by_module,
        forward,
        backward,
        gradients,
        held,
        lingering,
        sum(tape.sizes[storage] for storage in cached),
        sum(tape.sizes[storage] for storage in cached if storage not in keepers),
        again=again,
        input_kept=given.bytes if given.storage in keepers else 0,
        rerun=rerun,
        waiting=waiting,
    )


def _again(tape: Tape, result: Value, accumulates: bool, held: int) -> Moment:
    """The fullest moment backward where nothing hangs on the graph."""
    bare = copy(tape)
    bare.operations = [
        replace(operation, saved=(), outlives=False) if operation.outlives else operation
        for operation in tape.operations
    ]
    kept = sum(_kept_by_module(bare).values())
    return _backward(bare, result, _keepers(bare), kept, accumulates, held)[0]


def _keepers(tape: Tape) -> Counter[int]:
    """How many operations keep each storage."""
    keepers: Counter[int] = Counter()
    for operation in tape.operations:
        if operation.differentiates:
            keepers.update({value.storage for value in operation.saved})
    return keepers


def _lingering(tape: Tape) -> set[int]:
    """Storages that stay as long as the graph does."""
    return {
        value.storage
        for operation in tape.operations
        if operation.outlives and operation.differentiates
        for value in operation.saved
    }


def _selected(tape: Tape, given: Value, selects: Selection | None) -> int:
    """Bytes of the outputs that selective checkpointing keeps."""
    if selects is None:
        return 0
    chosen = selects(tape.operations)
    storages = {value.storage for operation in chosen for value in operation.outputs} - {given.storage}
    return sum(tape.sizes[storage] for storage in storages) + sum(one.kept_bytes for one in chosen)


def _kept_by_module(tape: Tape) -> dict[str, int]:
    """Bytes kept, each storage where it is kept first."""
    seen: set[int] = set()
    found: Counter[str] = Counter()
    for operation in tape.operations:
        if not operation.differentiates:
            continue
        found[operation.module] += operation.kept_bytes
        for value in operation.saved:
            if value.storage not in seen:
                seen.add(value.storage)
                found[operation.module] += tape.sizes[value.storage]
    return dict(found)


def _cached(tape: Tape) -> set[int]:
    """Storages that are held until the whole forward pass is over."""
    return {one.storage for operation in tape.operations if operation.cached for one in operation.outputs}


def _forward(
    tape: Tape, given: Value, result: Value, keepers: Counter[int], cached: set[int]
) -> tuple[Moment, Moment]:
    """The fullest moment, and the fullest until the last value is kept."""
    keeping = [
        index
        for index, operation in enumerate(tape.operations)
        if operation.differentiates and (operation.saved or operation.kept_bytes)
    ]
    end = keeping[-1] if keeping else -1
    last: dict[int, int] = {}
    for index, operation in enumerate(tape.operations):
        for value in (*operation.inputs, *operation.outputs, *operation.saved):
            last[value.storage] = index
    dying: dict[int, list[int]] = {}
    for storage, index in last.items():
        if (
            storage not in keepers
            and storage not in cached
            and storage not in (given.storage, result.storage)
        ):
            dying.setdefault(index, []).append(storage)
    alive = {given.storage}
    kept = passing = 0
    if given.storage in keepers:
        kept += tape.sizes[given.storage]
    most = again = Moment()
    for index, operation in enumerate(tape.operations):
        if index == end:
            # What an operation is given is kept before it runs, what it makes afterwards.
            inside = operation.kept_bytes or any(one in operation.outputs for one in operation.saved)
            again = most
        for value in operation.outputs:
            if value.storage not in alive:
                alive.add(value.storage)
                if value.storage in keepers:
                    kept += tape.sizes[value.storage]
                else:
                    passing += tape.sizes[value.storage]
        kept += operation.kept_bytes
        if kept + passing + operation.forward_temp > most.bytes:
            most = Moment(_named(operation), kept, passing + operation.forward_temp)
        if index == end and inside:
            again = most
        for storage in dying.get(index, ()):
            passing -= tape.sizes[storage]
    return most, again


class _Gradient:
    """A gradient's storage, and how many values it is the gradient of."""

    __slots__ = ("bytes", "holders")

    def __init__(self, size: int) -> None:
        self.bytes = size
        self.holders = 1


def _backward(
    tape: Tape, result: Value, keepers: Counter[int], kept: int, accumulates: bool, outside: int
) -> tuple[Moment, int]:
    """The fullest moment, and gradients that are there when something kept is needed first."""
    held = dict(keepers)
    for storage in _lingering(tape):
        held[storage] += 1
    gradients = {result.number: _Gradient(result.bytes)}
    passing, trained = result.bytes + outside, 0
    most = Moment("", kept, passing, trained)
    waiting: int | None = None
    for operation in reversed(tape.operations):
        if not operation.differentiates:
            continue
        arriving = [found for value in operation.outputs if (found := gradients.pop(value.number, None))]
        if not arriving:
            continue
        if waiting is None and (operation.saved or operation.kept_bytes):
            waiting = passing
        if operation.reuses:
            # Gradients are written over what was saved.
            kept -= _freed(tape, operation, held)
        passing, temporary = _differentiate(operation, arriving, gradients, passing)
        # Gradients that are added to others are made first, as any other.
        weights = operation.weight_bytes
        if not accumulates:
            trained += weights
        now = passing + temporary + operation.backward_temp + (weights if accumulates else 0)
        if kept + now + trained > most.bytes:
            most = Moment(_named(operation), kept, now, trained)
        for found in arriving:
            found.holders -= 1
            if not found.holders:
                passing -= found.bytes
        if not operation.reuses:
            kept -= _freed(tape, operation, held)
    return most, passing if waiting is None else waiting


def _freed(tape: Tape, operation: Operation, held: dict[int, int]) -> int:
    """Bytes of what an operation saved that nothing else keeps."""
    size = operation.kept_bytes
    for storage in {value.storage for value in operation.saved}:
        held[storage] -= 1
        if not held[storage]:
            size += tape.sizes[storage]
    return size


def _differentiate(
    operation: Operation,
    arriving: list[_Gradient],
    gradients: dict[int, _Gradient],
    passing: int,
) -> tuple[int, int]:
    """Make the gradients of an operation's inputs: bytes passing afterwards, and bytes that were added to others."""
    temporary = 0
    for value in operation.inputs:
        if not value.grad:
            continue
        existing = gradients.get(value.number)
        if operation.passes:
            made = arriving[0]
            made.holders += 1
        else:
            made = _Gradient(value.bytes)
            passing += made.bytes
        if existing is None:
            gradients[value.number] = made
            continue
        # Added in place to the first if nothing else holds it, else to the second, else in a new tensor.
        if existing.holders == 1:
            temporary += _given_back(made)
            passing -= _given_back(made)
            made.holders -= 1
        elif made.holders == 1 or (operation.passes and made.holders == 2):
            existing.holders -= 1
            gradients[value.number] = made
        else:
            existing.holders -= 1
            made.holders -= 1
            fresh = _Gradient(value.bytes)
            passing += fresh.bytes
            gradients[value.number] = fresh
    return passing, temporary


def _given_back(made: _Gradient) -> int:
    """Bytes that go with a gradient once it has been added to another."""
    return made.bytes if made.holders == 1 else 0


def _named(operation: Operation) -> str:
    return f"{operation.module}: {operation.name}" if operation.module else operation.name
