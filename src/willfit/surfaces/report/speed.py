"""How fast a run would be, in the terminal: a small table under the memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from willfit.quantities import format_count
from willfit.surfaces.report.lines import print_text

#: What holds a figure up, in words.
_BINDS = {
    "bandwidth": "memory bandwidth",
    "compute": "arithmetic",
    "overhead": "launching kernels",
    "communication": "links between devices",
    "memory": "memory: fewer users fit than were asked for",
}


def render_speed(speed: Mapping[str, Any], console: Console) -> None:
    """Print the figures of `speed` as the published JSON has them, with intervals and what holds each up."""
    print_text(console, _title(speed), 2)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_column("interval", style="dim")
    table.add_column("held up by", style="dim")
    for name, words, unit in _rows(speed):
        figure = speed[name]
        low, high = (_short(figure[key], unit) for key in ("low", "high"))
        table.add_row(
            words, f"{_short(figure['value'], unit)}{unit}", f"{low} to {high}", _BINDS[figure["binds"]]
        )
    console.print(Padding(table, (0, 2)))
    for note in speed["notes"]:
        print_text(console, Text(f"· {note}", style="dim"), 2, 2)
    console.print()


def _title(speed: Mapping[str, Any]) -> Text:
    title = Text("Speed", style="bold")
    if "tokens" in speed:
        return title.append(f"  a step of {speed['tokens']:,} tokens", style="dim")
    users, running = speed["users"], speed["running"]
    who = "1 user" if users == 1 else f"{users} users"
    if running < users:
        who += f", {running} of them at once"
    prompt = f", {speed['prompt']:,} of them the prompt" if "prompt" in speed else ""
    return title.append(f"  {who} at {speed['context']:,} tokens{prompt}", style="dim")


def _rows(speed: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    if "tokens" in speed:
        return [
            ("step_time_s", "a step", " s"),
            ("tokens_per_s", "tokens", " / s"),
            ("tokens_per_day", "tokens", " / day"),
        ]
    rows = [("first_token_s", "first token", " s"), ("tokens_per_s_per_user", "then, each user", " tokens/s")]
    return rows if speed["running"] == 1 else [*rows, ("tokens_per_s", "all together", " tokens/s")]


def _short(value: float, unit: str) -> str:
    if unit == " / day":
        return format_count(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
