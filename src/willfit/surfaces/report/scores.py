"""How right the predictions are, in the terminal."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from willfit.validation.scoring import Score


def render(score: Score, console: Console) -> None:
    """Print the metrics, and what was skipped and why."""
    console.print()
    console.print(Text(f" {score.n_predicted} of {score.n_cases} cases predicted", style="bold"))
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("metric")
    for name in ("n", "median error", "90th percentile", "bias", "in interval", "under"):
        table.add_column(name, justify="right")
    for name, figures in score.metrics().items():
        if "share" in figures:
            table.add_row(name, f"{figures['n']:.0f}", f"{100 * figures['share']:.1f} %", "", "", "", "")
            continue
        table.add_row(
            name,
            f"{figures['n']:.0f}",
            f"{figures['median_ape']:.2f} %",
            f"{figures['p90_ape']:.2f} %",
            f"{figures['bias']:+.2f} %",
            f"{100 * figures['coverage90']:.0f} %",
            f"{100 * figures['under']:.0f} %",
        )
    console.print(Padding(table, (0, 2)))
    if score.skipped:
        console.print()
        for reason, count in Counter(reason for _, reason in score.skipped).most_common(12):
            console.print(Padding(Text(f"· {count} skipped: {reason}", style="dim"), (0, 2)))
    console.print()
