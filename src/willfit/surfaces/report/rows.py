"""How far a knob goes, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from willfit.engines.base import AskedPrompt
from willfit.planning.binding import Place
from willfit.planning.rows import Row
from willfit.planning.solving import Furthest
from willfit.quantities import format_bytes
from willfit.surfaces.report.estimate import devices_in_words
from willfit.surfaces.report.estimate import render as render_estimate
from willfit.surfaces.report.lines import print_text


def as_json(rows: Sequence[Row], prompt: AskedPrompt | None = None) -> dict[str, Any]:
    """The table as JSON, with the prompts that it is about."""
    estimate, knob = rows[0].found.estimate, rows[0].found.knob
    return {
        "model": estimate.model,
        "engine": estimate.engine,
        "engine_version": estimate.engine_version,
        "knob": knob.name,
        "unit": knob.unit,
        **({} if prompt is None else {"prompt": prompt.as_json()}),
        "rows": [_row_as_json(row) for row in rows],
    }


def render(
    rows: Sequence[Row], console: Console, explain: bool = False, prompt: AskedPrompt | None = None
) -> None:
    """Print the table.

    Parameters
    ----------
    explain
        Also print the estimate at the first row's value.
    prompt
        What was counted.
    """
    first = rows[0].found
    estimate = first.estimate
    console.print()
    title = Text.assemble(" ", (first.knob.what, "bold"), f": {estimate.model} on ")
    title.append(f"{devices_in_words(estimate)}, {estimate.engine} {estimate.engine_version}".rstrip())
    print_text(console, title, 0)
    console.print()
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    if rows[0].condition:
        table.add_column()
    table.add_column("surely", justify="right", no_wrap=True)
    table.add_column("most likely", justify="right", no_wrap=True)
    table.add_column("what is in the way of more", style="dim")
    for row in rows:
        held = (_condition(row),) if row.condition else ()
        table.add_row(*held, *_values(row.found), _in_the_way(row.found))
    console.print(Padding(table, (0, 2)))
    console.print()
    if prompt is not None:
        print_text(console, Text(f"· {prompt.in_words()}", style="dim"), 2, 2)
        console.print()
    if explain:
        render_estimate(estimate, console, explain)


def _row_as_json(row: Row) -> dict[str, Any]:
    found, beyond = row.found, row.found.beyond
    return {
        **({row.condition: row.count} if row.condition else {}),
        "value": found.value,
        "likely": found.likely_value,
        "last": found.knob.value(found.last),
        "beyond": None if beyond is None else _place_as_json(beyond),
    }


def _place_as_json(place: Place) -> dict[str, Any]:
    if place.kind == "refusal":
        return {"kind": place.kind, "name": place.name}
    return {
        "kind": place.kind,
        "name": place.name,
        "needed_bytes": place.needed_bytes,
        "high_bytes": place.surely_bytes,
        "room_bytes": place.room_bytes,
    }


def _condition(row: Row) -> str:
    if row.condition == "users":
        return f"{row.count} user{'s' if row.count > 1 else ''}"
    return f"{row.count:,} tokens each" if row.condition else ""


def _values(found: Furthest) -> tuple[Text, Text]:
    surely, likely = (
        Text("none" if value is None else f"{value:,}") for value in (found.value, found.likely_value)
    )
    surely.stylize("bold" if found.value is not None else "dim")
    return surely, likely


def _in_the_way(found: Furthest) -> str:
    place = found.beyond
    if place is None:
        least = found.knob.size < 0 or found.knob.values
        return "nothing: it cannot be less" if least else "nothing: it is the most that the model has"
    if place.kind == "refusal":
        return place.name
    room = format_bytes(max(0, place.room_bytes))
    where = {"pool": "the cache has", "device": f"{place.name} has", "host": "the host has"}[place.kind]
    more = "the next step" if found.step else "even the first step"
    return f"{where} {room}, {more} needs up to {format_bytes(place.surely_bytes)}"
