"""Answers that are kept while a sweep goes on: a Parquet file for each chunk, put together at the end."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from willfit.errors import BadInput
from willfit.sweeping.chunks import Chunk

#: Rows of a row group: readers decode one at a time.
_ROW_GROUP = 2**17


@dataclass
class Counts:
    """What the answers are.

    Attributes
    ----------
    verdicts, refusals, errors
        So many points each, the last two by their words.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, table: Any) -> None:
        """Count the rows of an Arrow table."""
        for counter, name in ((self.verdicts, "verdict"), (self.refusals, "refusal"), (self.errors, "error")):
            for entry in table.column(name).value_counts().to_pylist():
                if entry["values"] is not None:
                    counter[entry["values"]] += entry["counts"]


class Parts:
    """The folder `OUT.parts` beside the file that a sweep writes.

    Parameters
    ----------
    out
        That file.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(f"{out.name}.parts")

    def open(self) -> None:
        """Make the folder.

        Raises
        ------
        BadInput
            If nothing can be written there.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            for unfinished in self.folder.glob("*.unfinished"):
                unfinished.unlink()
        except OSError as error:
            raise BadInput(
                f"{self.folder} cannot be made: {error.strerror}", "name another file with -o"
            ) from None

    def has(self, chunk: Chunk) -> bool:
        """Whether the answers of a chunk are kept, whole."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return bool(pq.read_metadata(self._path(chunk)).num_rows == chunk.size)
        except (OSError, pa.ArrowInvalid):
            return False

    def keep(self, chunk: Chunk, content: bytes) -> None:
        """Keep the answers of a chunk, whole or not at all.

        Raises
        ------
        BadInput
            If they cannot be written.
        """
        unfinished = self.folder / f"{chunk.name}.unfinished"
        try:
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(self._path(chunk))
        except OSError as error:
            raise BadInput(f"{unfinished} cannot be written: {error.strerror}") from None

    def join(self, chunks: Sequence[Chunk], schema: Any) -> Counts:
        """Write the file from the parts, in the order of the grid, and take the parts away.

        Returns
        -------
        Counts
            What is in it.

        Raises
        ------
        BadInput
            If it cannot be written.
        """
        import pyarrow.parquet as pq

        counts = Counts()
        unfinished = self.folder / "whole.unfinished"
        try:
            with pq.ParquetWriter(unfinished, schema) as writer:
                for table in _grouped(self._tables(chunks, schema)):
                    writer.write_table(table, row_group_size=_ROW_GROUP)
                    counts.add(table)
            unfinished.replace(self.out)
        except OSError as error:
            raise BadInput(f"{self.out} cannot be written: {error.strerror}") from None
        self._remove()
        return counts

    def _tables(self, chunks: Iterable[Chunk], schema: Any) -> Iterator[Any]:
        import pyarrow.parquet as pq

        for chunk in chunks:
            yield pq.ParquetFile(self._path(chunk)).read().select(schema.names)

    def _remove(self) -> None:
        """Take away what this program wrote, and the folder if nothing else is in it."""
        for path in (*self.folder.glob("*.parquet"), *self.folder.glob("*.unfinished")):
            path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _path(self, chunk: Chunk) -> Path:
        return self.folder / f"{chunk.name}.parquet"


def counts_of(out: Path) -> Counts:
    """What is in a file that was written before."""
    import pyarrow.parquet as pq

    counts, file = Counts(), pq.ParquetFile(out)
    for group in range(file.num_row_groups):
        counts.add(file.read_row_group(group, columns=["verdict", "refusal", "error"]))
    return counts


def _grouped(tables: Iterable[Any]) -> Iterator[Any]:
    """Small tables put together until a row group is full."""
    import pyarrow as pa

    waiting: list[Any] = []
    for table in tables:
        waiting.append(table)
        if sum(one.num_rows for one in waiting) >= _ROW_GROUP:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()
