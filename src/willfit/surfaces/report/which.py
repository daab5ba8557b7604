"""Devices that run a model, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from willfit.engines.base import Question, Subject
from willfit.hardware.device import Device
from willfit.planning.which import Found
from willfit.quantities import GIB, format_bytes
from willfit.surfaces.report.estimate import VERDICT_STYLE
from willfit.surfaces.report.lines import print_text


def as_json(found: Sequence[Found]) -> list[dict[str, Any]]:
    """The devices as JSON."""
    return [_as_json(one) for one in found]


def render(
    subject: Subject, question: Question, found: Sequence[Found], console: Console, unable: bool, most: int
) -> None:
    """Print the devices.

    Parameters
    ----------
    unable
        Also print those of which no number does, with the reason; and all that do.
    most
        Else so many lines.
    """
    able = [one for one in found if one.way is not None]
    shown = able if unable else able[:most]
    console.print()
    users = f"{question.users} user{'s' if question.users > 1 else ''}"
    title = Text.assemble(" ", (subject.model, "bold"), f" in {subject.recipe.name} for {users}")
    title.append(f" of {question.context_for(subject.architecture):,} tokens")
    print_text(console, title, 0)
    if question.prompt is not None:
        print_text(console, Text(f"· {question.prompt.in_words()}", style="dim"), 2, 2)
    console.print()
    if not able:
        print_text(console, Text("no device that is known runs it"), 2)
    else:
        console.print(Padding(_table(shown), (0, 2)))
    if len(shown) < len(able):
        print_text(console, Text(f"and {len(able) - len(shown)} more: --all", style="dim"), 2)
    console.print()
    if unable:
        for one in found:
            if one.way is None:
                print_text(console, Text(f"✘ {_name(one.device)}: {_why(one)}", style="dim"), 2, 2)
        console.print()


def _table(found: Sequence[Found]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("devices", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("to spare", justify="right", no_wrap=True)
    table.add_column("engine", style="dim")
    for one in found:
        way = one.way
        assert way is not None
        sign, _, style = VERDICT_STYLE[way.verdict]
        memory = (way.device.usable_bytes or 0) * way.count / GIB
        spare = format_bytes(max(0, way.spare_bytes))
        table.add_row(
            Text(sign, style),
            f"{way.count} × {_name(way.device)}",
            f"{memory:,.0f} GiB",
            f"{spare}{' each' if way.count > 1 else ''}",
            way.engine,
        )
    return table


def _name(device: Device) -> str:
    """A device's name with its size, where it is sold in several."""
    if not device.memory_options_bytes:
        return device.name
    return f"{device.name}, {(device.marketing_bytes or 0) // GIB} GB"


def _why(found: Found) -> str:
    """Why no number of a device does."""
    last = max(found.tried, key=lambda one: one.count)
    if last.reason:
        return last.reason
    lacking = format_bytes(max(0, -last.spare_bytes))
    return f"{last.count} of them lack {lacking}{' each' if last.count > 1 else ''}"


def _as_json(found: Found) -> dict[str, Any]:
    way = found.way
    if way is None:
        return {"device": _name(found.device), "count": None, "reason": _why(found)}
    return {
        "device": _name(found.device),
        "count": way.count,
        "engine": way.engine,
        "verdict": way.verdict,
        "usable_bytes": found.device.usable_bytes,
        "peak_bytes": way.peak_bytes,
        "spare_bytes": way.spare_bytes,
    }
