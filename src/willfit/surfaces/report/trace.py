"""A traced step in the terminal: the peak by category, phases, who holds most, and what tools would print."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from willfit.estimate import Estimate
from willfit.quantities import format_bytes
from willfit.surfaces.report.estimate import render as render_estimate
from willfit.surfaces.report.lines import print_text

#: What tools call the figures of a trace, and one of our own.
_FIGURES = (
    ("allocated_bytes", "torch.cuda.max_memory_allocated"),
    ("reserved_bytes", "torch.cuda.max_memory_reserved"),
    ("shown_bytes", "nvidia-smi"),
    ("smallest_bytes", "the least that the allocator can do with"),
)

#: Contributors that are shown where nobody asks for more.
_FEW = 8


def render(estimate: Estimate, console: Console, explain: bool = False) -> None:
    """Print an estimate that was traced."""
    render_estimate(estimate, console, explain)
    trace = estimate.details["trace"]
    print_text(console, _peak(trace["peak"]), 2)
    console.print(Padding(_figures(trace), (0, 2, 1, 2)))
    print_text(console, Text("Phases of the last step, at their fullest", style="bold"), 2)
    console.print(Padding(_phases(trace["phases"]), (0, 2, 1, 2)))
    print_text(console, Text("Who holds most at the peak", style="bold"), 2)
    told = trace["contributors"] if explain else trace["contributors"][:_FEW]
    console.print(Padding(_contributors(told), (0, 2, 1, 2)))
    print_text(console, Text(_run(trace), style="dim"), 2)
    console.print()


def _peak(peak: dict[str, Any]) -> Text:
    """Where a step is fullest."""
    where = " in ".join(part for part in (peak["op"], peak["module"]) if part)
    line = Text.assemble("Fullest in step ", str(peak["step"]), ", ", (peak["phase"], "bold"))
    return line.append(f": {where}" + (f", {peak['source']}" if peak["source"] else ""))


def _figures(trace: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name, words in _FIGURES:
        table.add_row(words, format_bytes(trace[name]))
    return table


def _phases(phases: list[dict[str, Any]]) -> Table:
    """The fullest instant of each phase of the last step."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column("phase")
    table.add_column("alive", justify="right")
    for one in phases:
        table.add_row(one["phase"], format_bytes(one["bytes"]))
    return table


def _contributors(groups: list[dict[str, Any]]) -> Table:
    """Groups of like storages at the peak, the largest first."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("bytes", "how many", "what", "made by", "in"):
        table.add_column(name, justify="right" if name in ("bytes", "how many") else "left", overflow="fold")
    for one in groups:
        shape = "×".join(map(str, one["shape"])) or "scalar"
        where = one["module"] + (f" ({one['source']})" if one["source"] else "")
        what = f"{one['category'].replace('_', ' ')} {shape} {one['dtype']}"
        table.add_row(format_bytes(one["bytes"]), f"{one['count']:,}", what, one["op"], where)
    return table


def _run(trace: dict[str, Any]) -> str:
    """What ran."""
    versions = ", ".join(f"{name} {version}" for name, version in trace["versions"].items())
    kernels = ", ".join(f"{name} attention {count} times" for name, count in trace["kernels"].items())
    return f"{trace['events']:,} events of {trace['storages']:,} storages; {versions}" + (
        f"; {kernels}" if kernels else ""
    )
