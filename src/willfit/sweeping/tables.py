"""Rows as Arrow tables and Parquet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from willfit.sweeping.chunks import Chunk, answered
from willfit.sweeping.conditions import DEVICE, DEVICES, column_of
from willfit.sweeping.options import GPU, Kind, Run, options_of
from willfit.sweeping.rows import Row

#: Options of which the answer says what they became.
_ANSWERED = ("engine", "engine_version")

#: Columns of an answer that are not bytes.
_TEXTS = ("engine", "engine_version", "verdict", "refusal", "error")
_NUMBERS = ("probability", "tokens_per_s", "tokens_per_s_low", "tokens_per_s_high")


def schema_of(run: Run, options: Iterable[str], speed: bool) -> Any:
    """The `pyarrow.Schema` of a sweep: the options that it sets, then the answers.

    Parameters
    ----------
    options
        By `Option.name`.
    """
    import pyarrow as pa

    types: dict[Kind, Any] = {
        "switch": pa.bool_(), "whole": pa.int64(), "tokens": pa.int64(), "number": pa.float64(), "text": pa.string(),
    }  # fmt: skip
    kinds = {option.name: option.kind for option in options_of(run).values()}
    fields = []
    for name in options:
        if name not in _ANSWERED:
            fields.append((name, types[kinds[name]]))
        if name == GPU:
            fields += [(DEVICE, pa.string()), (DEVICES, pa.int64())]
    for name in Row._fields:
        of_steps, of_speed = name in ("allocated_bytes", "reserved_bytes"), name.startswith("tokens_per_s")
        if (of_steps and run == "estimate") or (of_speed and not speed):
            continue
        kind: Kind = "text" if name in _TEXTS else "number" if name in _NUMBERS else "whole"
        fields.append((name, types[kind]))
    return pa.schema(fields)


def parquet_of(text: str) -> bytes:
    """The rows of a chunk as a Parquet file, with the options of their points: what a worker gives back."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    chunk = Chunk.from_text(text)
    rows = answered(text)
    points = list(chunk.points())
    schema = schema_of(chunk.run, sorted({name for point in points[:1] for name in point}), chunk.speed)
    given = {
        name: [column_of(point, name) for point in points] for name in schema.names if name not in Row._fields
    }
    columns = given | dict(zip(Row._fields, map(list, zip(*rows, strict=True)), strict=True))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: columns[name] for name in schema.names}, schema), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content
