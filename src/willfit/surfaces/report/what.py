"""Models that a machine runs, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from willfit.engines.base import Machine, Question
from willfit.planning.what import Runs
from willfit.quantities import format_bytes
from willfit.surfaces.report.estimate import VERDICT_STYLE, devices_in_words
from willfit.surfaces.report.lines import print_text


def as_json(found: Iterable[Runs]) -> list[dict[str, Any]]:
    """The models as JSON."""
    return [
        {
            "model": one.subject.model,
            "format": one.subject.recipe.name,
            "parameters": one.parameters,
            "engine": one.estimate.engine,
            "verdict": one.estimate.verdict,
            "probability": one.estimate.probability,
            "peak_bytes": max((device.peak_bytes for device in one.estimate.devices), default=0),
            "max_context": one.estimate.capacity.max_context if one.estimate.capacity else None,
            "speed": None if one.speed is None else one.speed.as_json(),
            "alike": list(one.alike),
        }
        for one in found
    ]


def render(found: Sequence[Runs], machine: Machine, question: Question, console: Console) -> None:
    """Print the models."""
    console.print()
    if not found:
        print_text(console, Text("no bundled model fits"), 1)
        console.print()
        return
    first = found[0].estimate
    users = f"{question.users} user{'s' if question.users > 1 else ''}"
    title = Text.assemble(" ", (devices_in_words(first), "bold"), f", {first.engine} {first.engine_version}")
    title.append(f", {users} of {first.context:,} tokens: what runs, the largest first")
    print_text(console, title, 0)
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("model", overflow="fold")
    table.add_column("format", style="dim", no_wrap=True)
    table.add_column("memory", justify="right", no_wrap=True)
    table.add_column("context", justify="right", no_wrap=True)
    table.add_column("tokens/s", justify="right", no_wrap=True)
    for one in found:
        table.add_row(*_cells(one))
    console.print(Padding(table, (0, 2)))
    console.print()
    legend = "context: the longest of one user; tokens/s: of each user; +1: one more bundled model has the same sizes"
    print_text(console, Text(legend, style="dim"), 2)
    console.print()


def _cells(one: Runs) -> tuple[Text | str, ...]:
    sign, _, style = VERDICT_STYLE[one.estimate.verdict]
    name = Text(one.subject.model)
    if one.alike:
        name.append(f" +{len(one.alike)}", style="dim")
    capacity = one.estimate.capacity
    memory = max((device.peak_bytes for device in one.estimate.devices), default=0)
    rate = one.speed.figures["tokens_per_s_per_user"] if one.speed else None
    return (
        Text(sign, style),
        name,
        one.subject.recipe.name.removeprefix("gguf ").split(" per ")[0],
        format_bytes(memory),
        _length(capacity.max_context) if capacity and capacity.max_context else "",
        f"{rate.value:,.0f}" if rate else "",
    )


def _length(tokens: int) -> str:
    """Tokens, in thousands of 1,024 where there are many."""
    return f"{tokens / 1024:,.0f}k" if tokens >= 1024 else str(tokens)
