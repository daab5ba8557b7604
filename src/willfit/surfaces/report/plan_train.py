"""Ranked plans of training as a table, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from willfit.planning.training_plans import TrainingPlanned
from willfit.planning.training_search.judging import TrainingWay
from willfit.planning.training_search.searching import TrainingPlan
from willfit.quantities import format_bytes
from willfit.surfaces.report.lines import print_text
from willfit.surfaces.report.plan import device_name, said

_GOALS = {
    "throughput": "the most tokens a second first",
    "price": "the lowest price of an hour first",
    "devices": "the fewest devices first",
    "cost": "the lowest price of a million tokens first",
}

#: Ways without a plan that are shown where there is no plan at all.
_FEW = 6
#: From so many columns on all figures have room.
_WIDE = 100
_HEADS = {"price": "$/h", "cost": "$/M tok", "full": "tok/s", "headroom": "spare"}


def as_json(found: TrainingPlanned, commands: Sequence[str]) -> dict[str, Any]:
    """Plans, the front and what was rejected."""
    return {
        "model": found.asked.model,
        "goal": found.goal,
        "judged": found.found.judged,
        "fitting": found.found.fitting,
        "plans": [
            {**_plan_json(plan), "command": command}
            for plan, command in zip(found.found.plans, commands, strict=False)
        ],
        "front": [_plan_json(plan) for plan in found.found.front],
        "remedies": list(found.remedies),
        "rejected": [{**_way_json(way), "why": reason(way, why)} for way, why in found.found.rejected],
    }


def _plan_json(plan: TrainingPlan) -> dict[str, Any]:
    names = {"full": "tokens_per_s", "per-user": "tokens_per_s_per_device"}
    figures = {
        names.get(name, name.replace("-", "_")): value if value == value else None
        for name, value in plan.figures.items()
    }
    speed = plan.way.speed
    return {
        **_way_json(plan.way),
        "figures": figures,
        "on_front": plan.on_front,
        "speed": None if speed is None else speed.as_json(),
    }


def _way_json(way: TrainingWay) -> dict[str, Any]:
    layout = way.settings.layout
    return {
        "device": device_name(way.device),
        "count": way.count,
        "framework": way.scheme.framework,
        "data": way.scheme.layout.data,
        "tp": way.scheme.layout.tp,
        "pp": way.scheme.layout.pp,
        "cp": way.scheme.layout.cp,
        "ep": way.scheme.layout.ep,
        "sp": layout.sp,
        "micro_batch": way.settings.micro_batch,
        "gradient_accumulation": way.settings.gradient_accumulation,
        "checkpointing": way.settings.checkpointing.kind,
        "recipe": way.settings.precision.recipe,
        "verdict": way.estimate.verdict if way.estimate is not None else None,
        "spare_bytes": way.spare_bytes,
    }


def render(
    found: TrainingPlanned, commands: Sequence[str], console: Console, most: int, rejected: bool
) -> None:
    """Print the plans."""
    settings = found.asked.settings
    console.print()
    title = Text.assemble(" training ", (found.asked.model, "bold"))
    if settings.adapter is not None:
        title.append(f", {settings.adapter.kind}")
    if settings.quantization is not None:
        title.append(f" on {settings.quantization.method}")
    if settings.seq_len:
        title.append(f", {settings.seq_len:,} tokens a sequence")
    title.append(f": {found.found.fitting:,} of {found.found.judged:,} runs fit; {_GOALS[found.goal]}")
    print_text(console, title, 0)
    console.print()
    plans = found.found.plans[:most]
    if plans:
        console.print(Padding(_table(found, plans, console.width), (0, 2)))
        if len(found.found.plans) > most:
            more = len(found.found.plans) - most
            print_text(console, Text(f"and {more} more: --most {len(found.found.plans)}", style="dim"), 2)
        console.print()
        for line in _legend(found, plans):
            print_text(console, Text(f"· {line}", style="dim"), 2, 2)
        console.print()
        console.print(Text(f"# term by term\n{commands[0]}"), soft_wrap=True)
    elif found.found.rejected:
        way, why = found.found.rejected[0]
        print_text(console, Text(f"nothing does: {reason(way, why)}", style="red"), 2)
        print_text(console, Text(f"nearest: {_words(way)}"), 2)
        for remedy in found.remedies:
            print_text(console, Text(f"→ {remedy}"), 2, 2)
    console.print()
    shown = found.found.rejected if rejected else () if plans else found.found.rejected[:_FEW]
    if shown:
        print_text(console, Text("Not among them, those that came closest first", style="bold"), 2)
        for way, why in shown:
            print_text(console, Text(f"✘ {_words(way)}: {reason(way, why)}", style="dim"), 2, 2)
        console.print()


def reason(way: TrainingWay, why: str) -> str:
    """Why there is no plan, in a line."""
    if why:
        return why
    assert way.estimate is not None
    peak = max(one.peak_bytes for one in way.estimate.devices)
    return f"{format_bytes(peak)} of {format_bytes(way.device.usable_bytes or 0)} are needed on the fullest device"


def _table(found: TrainingPlanned, plans: Sequence[TrainingPlan], width: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("devices", overflow="fold")
    table.add_column("how", overflow="fold")
    table.add_column("batch", no_wrap=True)
    names = ["price", "cost", "full", "headroom"]
    if not any(plan.way.device in found.prices for plan in plans):
        names = names[2:]
    if width < _WIDE:
        names = [name for name in names if name not in ("headroom", "price")]
    for name in names:
        table.add_column(_HEADS[name], justify="right", no_wrap=True)
    for plan in plans:
        table.add_row(
            Text("★" if plan.on_front else " ", "yellow"),
            f"{plan.way.count} × {device_name(plan.way.device)}",
            _how(plan.way),
            _batch(plan.way),
            *(_figure(name, plan.figures[name]) for name in names),
        )
    return table


def _figure(name: str, value: float) -> str:
    return f"{value:.3f}" if name == "cost" and value < 1 else said(name, value)


def _how(way: TrainingWay) -> str:
    kept = way.settings.checkpointing.kind
    words = [way.scheme.framework, str(way.scheme)]
    return ", ".join(
        words + (["checkpoints"] if kept == "full" else [] if kept in (None, "none") else [kept])
    )


def _batch(way: TrainingWay) -> str:
    more = way.settings.gradient_accumulation
    return f"{way.settings.micro_batch}" + (f" × {more}" if more > 1 else "")


def _words(way: TrainingWay) -> str:
    return f"{way.count} × {device_name(way.device)}, {_how(way)}, batch {_batch(way)}"


def _legend(found: TrainingPlanned, plans: Sequence[TrainingPlan]) -> list[str]:
    lines = []
    if any(plan.on_front for plan in plans):
        cost = "cheaper" if found.goal in ("price", "cost") else "of fewer devices"
        lines.append(f"★ nothing {cost} is as fast")
    lines.append(
        "batch: sequences of a device at once × micro-batches of a step; checkpoints: layers run again backward"
    )
    sure = next((plan.way.speed for plan in plans if plan.way.speed is not None), None)
    if sure is not None:
        figure = sure.figures["tokens_per_s"]
        lines.append(
            f"speeds are between {figure.low / figure.value:.0%} and {figure.high / figure.value:.0%} of these"
        )
    dates = sorted({found.prices[plan.way.device].as_of for plan in plans if plan.way.device in found.prices})
    if dates:
        when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        lines.append(f"prices: list prices of {when}, the lowest found; your own with --prices FILE")
    return lines
