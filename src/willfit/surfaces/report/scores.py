"""How right the predictions are, in the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import groupby

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from willfit.validation.scoring import Score

#: From this width on columns stand apart.
_WIDE = 100

_LEGEND = (
    "errors in percent: the median, the 90th percentile, and the signed mean; how many of a hundred lie inside the "
    "90 % interval, and above it (under). Verdicts: how many of a hundred are wrong"
)


def render(score: Score, console: Console) -> None:
    """Print the metrics, and what was skipped and why."""
    console.print()
    console.print(Text(f" {score.n_predicted} of {score.n_cases} cases predicted", style="bold"))
    console.print()
    gap = 1 if console.width < _WIDE else 2
    table = Table(box=None, padding=(0, gap, 0, 0), header_style="dim")
    table.add_column("metric", overflow="fold")
    for name in ("n", "median", "p90", "bias", "inside", "under"):
        table.add_column(name, justify="right", no_wrap=True)
    for prefix, metrics in groupby(score.metrics().items(), key=lambda entry: entry[0].rpartition(".")[0]):
        table.add_row(Text(prefix, style="bold"))
        for name, figures in metrics:
            table.add_row(f"  {name.rpartition('.')[2]}", *_cells(figures))
    console.print(Padding(table, (0, 2)))
    console.print()
    console.print(Padding(Text(_LEGEND, style="dim"), (0, 2)))
    if score.skipped:
        console.print()
        for reason, count in Counter(reason for _, reason in score.skipped).most_common(12):
            console.print(Padding(Text(f"· {count} skipped: {reason}", style="dim"), (0, 2)))
    console.print()


def _cells(figures: Mapping[str, float]) -> tuple[str, ...]:
    """A metric's figures, in percent."""
    number = f"{figures['n']:.0f}"
    if "share" in figures:
        return number, f"{100 * figures['share']:.1f}"
    return (
        number,
        f"{figures['median_ape']:.2f}",
        f"{figures['p90_ape']:.2f}",
        f"{figures['bias']:+.2f}",
        f"{100 * figures['coverage90']:.0f}",
        f"{100 * figures['under']:.0f}",
    )
