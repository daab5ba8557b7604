"""Pieces of a grid that are answered apart: a text in, rows out, on any machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, product
from math import prod

from willfit.errors import BadInput
from willfit.sweeping.conditions import DEVICE, DEVICES, Condition, Skip, skipped
from willfit.sweeping.grid import Grid
from willfit.sweeping.identity import identity
from willfit.sweeping.options import GPU, Run, Value, parsed
from willfit.sweeping.questions.table import Group, questions_of
from willfit.sweeping.rows import Row

#: Points of a chunk at most: some seconds of work, which is what an interruption costs.
_MOST: dict[Run, int] = {"estimate": 4096, "train": 256, "trace": 8}

Axes = tuple[tuple[str, tuple[Value, ...]], ...]


@dataclass(frozen=True)
class Chunk:
    """A piece of a grid.

    Attributes
    ----------
    run, speed, skip
        As in the grid.
    options
        What all its points share, by `Option.name`.
    axes
        What varies, the outermost first.
    made_by
        The code that may answer it (`identity`).
    """

    run: Run
    speed: bool
    options: Mapping[str, Value]
    axes: Axes
    skip: Skip
    made_by: str

    @cached_property
    def text(self) -> str:
        """The chunk as text, the same for the same questions."""
        skip = [[[one.column, one.sign, list(one.values)] for one in conditions] for conditions in self.skip]
        fields = {
            "run": self.run, "speed": self.speed, "options": dict(self.options),
            "axes": [[name, list(values)] for name, values in self.axes], "skip": skip, "made_by": self.made_by,
        }  # fmt: skip
        return json.dumps(fields, sort_keys=True)

    @classmethod
    def from_text(cls, text: str) -> Chunk:
        """The chunk of a text."""
        read = json.loads(text)
        axes = tuple((name, tuple(values)) for name, values in read["axes"])
        skip = tuple(
            tuple(Condition(name, sign, tuple(values)) for name, sign, values in conditions)
            for conditions in read["skip"]
        )
        return cls(read["run"], read["speed"], read["options"], axes, skip, read["made_by"])

    @property
    def name(self) -> str:
        """A name for all that decides about the rows."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]

    @cached_property
    def size(self) -> int:
        """Points that are not left out: only what conditions look at is gone through."""
        looked_at = {one.column for conditions in self.skip for one in conditions}
        looked_at |= {GPU} if looked_at & {DEVICE, DEVICES} else set()
        seen = [axis for axis in self.axes if axis[0] in looked_at]
        others = prod(len(values) for name, values in self.axes if name not in looked_at)
        return others * sum(not skipped(point, self.skip) for point in _points(self.options, seen))

    def points(self) -> Iterator[dict[str, Value]]:
        """Every point that is not left out, in order."""
        return (point for point in _points(self.options, self.axes) if not skipped(point, self.skip))


def chunks_of(grid: Grid) -> list[Chunk]:
    """The chunks of a grid, in the order of its points; those without points are left out.

    A chunk has one model. Its outer options are fixed one after the other until what is left is not too many points: a
    value that is added to one of these makes new chunks and leaves the others as they are.
    """
    axes = tuple((option.name, values) for option, values in grid.axes)
    made_by = identity(grid.run)
    chunks = (
        Chunk(grid.run, grid.speed, options, left, grid.skip, made_by)
        for options, left in _cut(dict(grid.fixed), axes, _MOST[grid.run], one_model=True)
    )
    return [chunk for chunk in chunks if chunk.size]


def answered(text: str) -> list[Row]:
    """The rows of a chunk, in the order of its points: a pure function of its text and of the code.

    Raises
    ------
    BadInput
        If other code made the chunk than this.
    """
    chunk = Chunk.from_text(text)
    own = identity(chunk.run)
    if own != chunk.made_by:
        raise BadInput(
            f"a worker has {own}, and the sweep {chunk.made_by}", "install the same on all of them"
        )
    groups = [
        Group(parsed(chunk.run, options), tuple(_gpu(point) for point in points))
        for options, points in groupby(chunk.points(), _without_devices)
    ]
    return questions_of(chunk.run).rows(groups, chunk.speed)


def _without_devices(point: Mapping[str, Value]) -> dict[str, Value]:
    return {**point, GPU: None}


def _gpu(point: Mapping[str, Value]) -> str | None:
    gpu = point.get(GPU)
    return None if gpu is None else str(gpu)


def _cut(
    options: dict[str, Value], axes: Axes, most: int, one_model: bool = False
) -> Iterator[tuple[dict[str, Value], Axes]]:
    """Fix the outermost axis value by value, as long as there are too many points."""
    count = prod(len(values) for _, values in axes)
    if count <= most and not (one_model and axes and axes[0][0] == "model"):
        yield options, axes
        return
    (name, values), *rest = axes
    if not rest:
        for begin in range(0, len(values), most):
            yield options, ((name, values[begin : begin + most]),)
        return
    for value in values:
        yield from _cut({**options, name: value}, tuple(rest), most)


def _points(
    options: Mapping[str, Value], axes: Sequence[tuple[str, tuple[Value, ...]]]
) -> Iterator[dict[str, Value]]:
    names = [name for name, _ in axes]
    for values in product(*(values for _, values in axes)):
        yield {**options, **dict(zip(names, values, strict=True))}
