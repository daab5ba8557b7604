"""A whole sweep: what is left to do, who does it, and the file at the end."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from willfit.sweeping.chunks import Chunk, chunks_of
from willfit.sweeping.grid import Grid
from willfit.sweeping.parts import Counts, Parts, counts_of
from willfit.sweeping.tables import schema_of

#: Where in the file's metadata it says which sweep it is of.
_MARK = b"willfit.sweep"

#: Texts of chunks in; their places and their answers out, as they come.
Runner = Callable[[Sequence[str]], Iterator[tuple[int, bytes]]]


@dataclass(frozen=True)
class Plan:
    """What a sweep has to do.

    Attributes
    ----------
    chunks
        All of them, in the order of the grid.
    left
        Those that have no answer yet.
    schema
        Of the file.
    parts
        Where answers are kept.
    finished
        Whether the file is there, of this very grid and code.
    """

    chunks: Sequence[Chunk]
    left: Sequence[Chunk]
    schema: Any
    parts: Parts
    finished: bool

    @property
    def points(self) -> int:
        """Points of the grid."""
        return sum(chunk.size for chunk in self.chunks)

    @property
    def points_left(self) -> int:
        """Points that have no answer yet."""
        return sum(chunk.size for chunk in self.left)


@dataclass(frozen=True, slots=True)
class Swept:
    """A sweep that is done.

    Attributes
    ----------
    file
        Where the rows are.
    points, computed
        How many there are, and how many of them were answered now.
    seconds
        How long that took.
    counts
        What they are.
    """

    file: Path
    points: int
    computed: int
    seconds: float
    counts: Counts


def planned(grid: Grid, out: Path) -> Plan:
    """What there is to do for a grid whose answers go to a file.

    Raises
    ------
    BadInput
        If no point is left, or nothing can be written there.
    """
    chunks = chunks_of(grid)
    names = "\n".join((*grid.columns, *(chunk.name for chunk in chunks)))
    mark = hashlib.sha256(names.encode()).hexdigest()
    schema = schema_of(grid.run, grid.columns, grid.speed).with_metadata({_MARK: mark})
    parts = Parts(out)
    if _mark_of(out) == mark.encode():
        return Plan(chunks, (), schema, parts, finished=True)
    parts.open()
    return Plan(chunks, [chunk for chunk in chunks if not parts.has(chunk)], schema, parts, finished=False)


def swept(plan: Plan, runner: Runner, told: Callable[[int], None]) -> Swept:
    """Answer what is left and write the file.

    Parameters
    ----------
    told
        Called with the number of points of each chunk that is done.

    Raises
    ------
    BadInput
        If chunks cannot be answered or kept; what is done stays kept.
    """
    begin = time.monotonic()
    out = plan.parts.out
    if plan.finished:
        return Swept(out, plan.points, 0, 0.0, counts_of(out))
    if plan.left:
        with closing(runner([chunk.text for chunk in plan.left])) as answers:  # type: ignore[type-var]
            for index, content in answers:
                plan.parts.keep(plan.left[index], content)
                told(plan.left[index].size)
    counts = plan.parts.join(plan.chunks, plan.schema)
    return Swept(out, plan.points, plan.points_left, time.monotonic() - begin, counts)


def _mark_of(out: Path) -> bytes | None:
    """Which sweep a file is of; None if it is of none, or not there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return (pq.read_schema(out).metadata or {}).get(_MARK)
    except (OSError, pa.ArrowInvalid):
        return None
