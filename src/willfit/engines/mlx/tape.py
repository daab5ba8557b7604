"""Which arrays are alive while MLX evaluates a graph: its operations in order, put into command buffers.

The processor encodes operations and allocates their outputs ahead of the GPU. An array's memory is free once nothing
will read it any more and the command buffer of its last reader has been computed. A command buffer is committed when
it holds more operations, or its operations touch more elements, than a limit of the device; and at most so many may
wait that the oldest is waited for (mlx `transforms.cpp: eval_impl`, `backend/metal/eval.cpp`, `device.cpp`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Command buffers that may wait for the GPU (`transforms.cpp: MAX_ACTIVE_TASKS`).
WAITING = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """When a command buffer is committed.

    Attributes
    ----------
    operations
        It is when it has more kernels than this.
    elements
        Or when the arrays that they touch have this many elements; None without such a limit. MLX calls it megabytes,
        but counts elements.
    """

    operations: int
    elements: int | None


@dataclass(frozen=True, slots=True)
class Alive:
    """Arrays of one kind that are alive at the peak: `count` of `rows` x `columns` numbers of `width` bytes."""

    count: int
    label: str
    rows: int
    columns: int
    width: int

    @property
    def bytes(self) -> int:
        """All of them together."""
        return self.count * self.rows * self.columns * self.width


@dataclass(slots=True)
class _Array:
    label: str
    rows: int
    columns: int
    width: int
    born: int
    last: int
    held: Literal["", "surely", "maybe"] = ""

    @property
    def bytes(self) -> int:
        return self.rows * self.columns * self.width


class Tape:
    """Operations in the order in which they are encoded.

    Parameters
    ----------
    limits
        Of the device.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.step = 0
        self._arrays: list[_Array] = []
        self._commits: list[int] = []
        self._operations = 0
        self._elements = 0
        self._touched: set[int] = set()

    @property
    def committed(self) -> int:
        """Command buffers so far."""
        return len(self._commits)

    def make(self, label: str, rows: int, columns: int, width: int) -> int:
        """A new array, as the output of the operation that is run next; a number to call it by."""
        self._arrays.append(_Array(label, rows, columns, width, self.step, len(self._commits)))
        return len(self._arrays) - 1

    def run(self, *arrays: int, weights: int = 0, kernels: int = 1) -> None:
        """Encode an operation.

        Parameters
        ----------
        arrays
            What it reads and writes. An output that takes the place of an input is that input.
        weights
            Elements of weights and caches that it reads beside them.
        kernels
            How many kernels it takes.
        """
        now = len(self._commits)
        for index in arrays:
            one = self._arrays[index]
            one.last = now
            if index not in self._touched:
                self._touched.add(index)
                self._elements += one.rows * one.columns
        self._elements += weights
        self._operations += kernels
        self.step += 1
        many = self.limits.elements is not None and self._elements >= self.limits.elements
        if many or self._operations > self.limits.operations:
            self._commits.append(self.step)
            self._operations = self._elements = 0
            self._touched.clear()

    def hold(self, array: int, surely: bool = True) -> None:
        """Keep an array to the end: what only a cache's new state reads is evaluated last, behind all layers."""
        self._arrays[array].held = "surely" if surely else "maybe"

    def peak(self, waiting: int = WAITING, most: bool = False) -> tuple[Alive, ...]:
        """The arrays that are alive when their bytes are most.

        Parameters
        ----------
        waiting
            Command buffers that wait for the GPU.
        most
            Whether what may be kept to the end is.
        """
        changes: dict[int, int] = {}
        ends = []
        for one in self._arrays:
            end = one.last + waiting
            stays = one.held == "surely" or (most and one.held == "maybe") or end >= len(self._commits)
            ends.append(self.step + 1 if stays else self._commits[end])
            changes[one.born] = changes.get(one.born, 0) + one.bytes
            changes[ends[-1]] = changes.get(ends[-1], 0) - one.bytes
        now = highest = at = 0
        for step in sorted(changes):
            now += changes[step]
            if now > highest:
                highest, at = now, step
        counts: dict[tuple[str, int, int, int], int] = {}
        for one, end in zip(self._arrays, ends, strict=True):
            if one.born <= at < end:
                key = one.label, one.rows, one.columns, one.width
                counts[key] = counts.get(key, 0) + 1
        return tuple(Alive(count, *key) for key, count in counts.items())


def described(alive: tuple[Alive, ...]) -> str:
    """A formula of arrays that are alive: those with as many rows and bytes a number together."""
    together: dict[tuple[int, int], list[Alive]] = {}
    for one in alive:
        together.setdefault((one.rows, one.width), []).append(one)
    parts = []
    for (rows, width), members in together.items():
        inner = " + ".join(f"{one.count} {one.label} x {one.columns}" for one in members)
        inner = f"({inner})" if len(members) > 1 else inner
        parts.append(f"{rows} rows x {inner} x {width} B")
    return " + ".join(parts)
