"""The closed form over the trace, in the terminal: how many points agree, and those that do not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from willfit.quantities import format_bytes
from willfit.surfaces.report.lines import print_text
from willfit.tracing.forms import CLOSE, Compared


def render(rows: Sequence[Compared], console: Console) -> None:
    """Print a comparison."""
    answered = [row for row in rows if not row.reason]
    close = sum(row.close for row in answered)
    console.print()
    share = f"{close} of {len(answered)} points within {CLOSE:.0%}"
    print_text(console, Text.assemble("Closed form over trace: ", (share, "bold")), 1)
    console.print()
    console.print(Padding(_shares("family", answered, lambda row: row.point.family), (0, 2, 1, 2)))
    console.print(Padding(_shares("method", answered, lambda row: row.point.method), (0, 2, 1, 2)))
    apart = sorted((row for row in answered if not row.close), key=lambda row: -abs(row.ratio - 1))
    if apart:
        console.print(Padding(_apart(apart), (0, 2, 1, 2)))
    for row in rows:
        if row.reason:
            print_text(console, Text(f"· {row.point.name}: {row.reason}", style="dim"), 2, 2)


def _shares(head: str, rows: Sequence[Compared], key: Callable[[Compared], str]) -> Table:
    """How many agree, by something."""
    groups: dict[str, list[Compared]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(head)
    for name in ("agree", "of", "least", "most"):
        table.add_column(name, justify="right")
    for name, group in groups.items():
        ratios = [row.ratio for row in group]
        table.add_row(
            name,
            str(sum(row.close for row in group)),
            str(len(group)),
            f"{min(ratios):.3f}",
            f"{max(ratios):.3f}",
        )
    return table


def _apart(rows: Sequence[Compared]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("apart")
    for name in ("closed form", "trace", "ratio"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.point.name, format_bytes(row.closed_form), format_bytes(row.traced), f"{row.ratio:.3f}"
        )
    return table
