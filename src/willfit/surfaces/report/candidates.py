"""The table of answers when no device is named: which common devices, and how many, would do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from willfit.asking import Candidate
from willfit.quantities import GIB
from willfit.surfaces.report.estimate import VERDICT_STYLE
from willfit.surfaces.report.lines import print_text


def as_json(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """The table as JSON."""
    return {
        "model": candidates[0].estimate.model,
        "candidates": [
            {
                "device": candidate.device.name,
                "count": candidate.count,
                "engine": candidate.estimate.engine,
                "verdict": candidate.estimate.verdict,
                "probability": candidate.estimate.probability,
                "usable_bytes": candidate.device.usable_bytes,
                "max_context": candidate.estimate.capacity.max_context
                if candidate.estimate.capacity
                else None,
            }
            for candidate in candidates
        ],
    }


def render(candidates: Sequence[Candidate], console: Console) -> None:
    """Print the table."""
    first = candidates[0].estimate
    asked = first.context
    title = Text.assemble(" ", (first.model, "bold"), " on common devices")
    if asked:
        title.append(f", {asked:,} tokens")
    console.print()
    console.print(title)
    console.print()
    if "prompt" in first.details:
        print_text(console, Text(f"· {first.notes[0]}", style="dim"), 2, 2)
        console.print()
    counts = sorted({candidate.count for candidate in candidates})
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("device")
    table.add_column("usable", justify="right")
    table.add_column("engine")
    for count in counts:
        table.add_column(f"{count} ×", justify="left")
    by_name: dict[str, dict[int, Candidate]] = {}
    for candidate in candidates:
        by_name.setdefault(candidate.device.name, {})[candidate.count] = candidate
    for name, row in by_name.items():
        device = next(iter(row.values())).device
        usable = f"{device.usable_bytes / GIB:.1f} GiB" if device.usable_bytes else ""
        engine = next(iter(row.values())).estimate.engine
        table.add_row(name, usable, Text(engine, style="dim"), *(_cell(row.get(count)) for count in counts))
    console.print(Padding(table, (0, 2)))
    console.print()
    legend = "✔ fits   ≈ tight   ✘ does not fit   (beside it: the longest context)"
    console.print(
        Padding(Text(f"{legend}\nName a device for the whole answer: --gpu rtx4090", style="dim"), (0, 2))
    )
    console.print()


def _cell(candidate: Candidate | None) -> Text:
    if candidate is None:
        return Text("")
    verdict = candidate.estimate.verdict
    sign, _, style = VERDICT_STYLE[verdict]
    capacity = candidate.estimate.capacity
    cell = Text.assemble((sign, style))
    if verdict != "does_not_fit" and capacity is not None:
        longest = capacity.max_context
        cell.append(f" {longest / 1024:.0f}k" if longest >= 1024 else f" {longest}", style="dim")
    return cell
