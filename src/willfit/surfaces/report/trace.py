"""A traced step in the terminal: the peak by category, phases, who holds most, and what tools would print."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from willfit.asking import COMMON_DEVICES
from willfit.estimate import Estimate, verdict_of
from willfit.hardware.table import find_device
from willfit.quantities import format_bytes
from willfit.surfaces.report.estimate import VERDICT_STYLE
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
    if estimate.devices[0].usable_bytes is None:
        print_text(console, _common(estimate), 2, 2)
        console.print()
    print_text(console, _peak(trace["peak"]), 2)
    console.print(Padding(_figures(trace), (0, 2, 1, 2)))
    print_text(console, Text("Phases of the last step, at their fullest", style="bold"), 2)
    console.print(Padding(_phases(trace["phases"]), (0, 2, 1, 2)))
    print_text(console, Text("Who holds most at the peak", style="bold"), 2)
    told = trace["contributors"] if explain else trace["contributors"][:_FEW]
    console.print(Padding(_contributors(told), (0, 2, 1, 2)))
    print_text(console, Text(_run(trace), style="dim"), 2)
    console.print()


def _common(estimate: Estimate) -> Text:
    """On which of the devices that people have it would run."""
    low, high = estimate.devices[0].interval_bytes
    line = Text("One rank on common devices:")
    for name in COMMON_DEVICES:
        device = find_device(name)
        if device.vendor == "NVIDIA" and device.usable_bytes is not None:
            sign, _, style = VERDICT_STYLE[verdict_of(low, high, device.usable_bytes)]
            line.append(f"  {sign} ", style).append(name)
    return line


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
