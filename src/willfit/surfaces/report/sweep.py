"""A sweep in the terminal: what there is to do, and what came out."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from willfit.estimate import VERDICTS
from willfit.surfaces.report.estimate import VERDICT_STYLE
from willfit.surfaces.report.lines import print_text
from willfit.sweeping.sweep import Plan, Swept

#: Reasons that are shown, the most frequent first.
_SHOWN = 8


def before(plan: Plan) -> str:
    """What there is to do, in a line."""
    if plan.finished:
        return f"{plan.points:,} points: {plan.parts.out} has them already"
    kept = plan.points - plan.points_left
    chunks = len(plan.left)
    said = f"{plan.points:,} points" + (f", {kept:,} of them kept from before" if kept else "")
    return f"{said}; {chunks:,} chunk{'s' if chunks != 1 else ''} to do"


def stopped(plan: Plan) -> str:
    """What is left of a sweep that was interrupted, in a line."""
    done = sum(chunk.size for chunk in plan.chunks if plan.parts.has(chunk))
    return (
        f"stopped: {done:,} of {plan.points:,} points are kept in {plan.parts.folder}; "
        "the same command goes on from there"
    )


def as_json(done: Swept) -> dict[str, Any]:
    """The sweep as JSON."""
    counts = done.counts
    return {
        "file": str(done.file),
        "points": done.points,
        "computed": done.computed,
        "seconds": round(done.seconds, 3),
        "verdicts": dict(counts.verdicts),
        "errors": sum(counts.errors.values()),
        "errors_by_reason": _counted(counts.errors),
        "refusals_by_reason": _counted(counts.refusals),
    }


def render(done: Swept, console: Console) -> None:
    """Print how many points there are of each verdict, why some have none, and where the rows are."""
    counts = done.counts
    console.print()
    title = Text.assemble((f"{done.points:,} points", "bold"))
    if done.computed:
        speed = rate(done.computed / max(done.seconds, 1e-3))
        title.append(f", {done.computed:,} of them answered now in {done.seconds:,.1f} s, {speed} a second")
    print_text(console, title, 1)
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for verdict in VERDICTS:
        if counts.verdicts[verdict]:
            sign, words, style = VERDICT_STYLE[verdict]
            table.add_row(Text(sign, style), words, Text(f"{counts.verdicts[verdict]:,}", justify="right"))
    if counts.errors:
        table.add_row(Text("!", "red"), "no answer", Text(f"{counts.errors.total():,}", justify="right"))
    console.print(Padding(table, (0, 2)))
    for head, counter in (("refused by the engine", counts.refusals), ("no answer", counts.errors)):
        if counter:
            console.print()
            print_text(console, Text(f"{head}, by reason", style="dim"), 2)
            for reason, count in counter.most_common(_SHOWN):
                print_text(console, Text(f"{count:,} · {reason}"), 2, 2)
            if len(counter) > _SHOWN:
                print_text(console, Text(f"and {len(counter) - _SHOWN:,} more reasons", style="dim"), 2)
    console.print()
    print_text(console, Text.assemble("rows: ", (str(done.file), "bold")), 1)
    console.print()


def rate(points: float) -> str:
    """Points a second, with a decimal where there are few."""
    return f"{points:,.0f}" if points >= 10 else f"{points:.1f}"


def _counted(counter: Counter[str]) -> list[dict[str, Any]]:
    return [{"reason": reason, "points": count} for reason, count in counter.most_common()]
