"""A training estimate in the terminal: the fullest instant, what tools would print, and what to change."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from willfit.estimate import Estimate
from willfit.quantities import format_bytes
from willfit.surfaces.report.estimate import render as render_estimate
from willfit.surfaces.report.lines import print_text

#: What tools call the figures of an estimate.
_FIGURES = (
    ("allocated", "torch.cuda.max_memory_allocated"),
    ("reserved", "torch.cuda.max_memory_reserved"),
    ("shown", "nvidia-smi"),
)


def render(estimate: Estimate, console: Console, explain: bool = False) -> None:
    """Print an estimate of a training run."""
    render_estimate(estimate, console, explain)
    training = estimate.details.get("training")
    if training is None:
        return
    print_text(console, Text.assemble("Fullest at: ", (training["instant"], "bold")), 2)
    console.print(Padding(_figures(training), (0, 2)))
    console.print()
    if explain:
        console.print(Padding(_instants(training), (0, 2)))
        console.print()


def _figures(training: dict[str, object]) -> Table:
    """Allocated is a point that rules give; the other two depend on the allocator and on the card."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name, words in _FIGURES:
        figure = training[name]
        assert isinstance(figure, dict)
        size, low, high = (format_bytes(figure[key]) for key in ("bytes", "low_bytes", "high_bytes"))
        table.add_row(words, size, Text(f"{low} to {high}", style="dim"))
    return table


def _instants(training: dict[str, object]) -> Table:
    """Every instant of a step with what is alive in it."""
    table = Table(box=None, padding=(0, 2, 0, 0), title="A step, instant by instant", title_justify="left")
    for name in ("instant", "alive", "kept", "passing", "gradients", "communication"):
        table.add_column(name, justify="left" if name == "instant" else "right")
    instants = training["instants"]
    assert isinstance(instants, list)
    for one in instants:
        sizes = [
            one[key]
            for key in ("bytes", "kept_bytes", "passing_bytes", "gradient_bytes", "communication_bytes")
        ]
        table.add_row(one["name"], *(format_bytes(size) if size else "-" for size in sizes))
    return table
