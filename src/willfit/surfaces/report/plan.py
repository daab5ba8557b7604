"""Ranked plans as a table, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from willfit.engines.base import AskedPrompt
from willfit.hardware.device import Device
from willfit.planning.search.figures import BY_NAME
from willfit.planning.search.searching import Plan, Rejected
from willfit.planning.search.ways import Way
from willfit.planning.serving_plans import Planned
from willfit.planning.together import Together
from willfit.quantities import GIB, format_bytes
from willfit.surfaces.report.estimate import VERDICT_STYLE
from willfit.surfaces.report.lines import print_text

_GOALS = {
    "price": "the lowest price first",
    "devices": "the fewest devices first",
    "throughput": "the most tokens a second of all users that fit first",
    "latency": "the most tokens a second of each user first",
    "cost": "the lowest price of a million tokens first",
    "context": "the longest context first",
}

#: From so many columns on all figures have room.
_WIDE = 100
#: Reasons that are shown unasked.
_FEW = 6


def as_json(found: Planned) -> dict[str, Any]:
    """Plans, the front and what was rejected."""
    context, users = found.question.context, found.question.users
    return {
        "model": found.asked.model,
        "context": context,
        "users": users,
        "goal": found.goal,
        "judged": found.found.judged,
        "fitting": found.found.fitting,
        "plans": [
            {
                **_plan_json(plan, found.prices),
                "probability": one.estimate.probability,
                "speed": None if one.speed is None else one.speed.as_json(),
            }
            for plan, one in found.plans
        ],
        "together": [
            {
                "engine": one.estimate.engine,
                "format": one.subject.recipe.name,
                "verdict": one.estimate.verdict,
                "probability": one.estimate.probability,
                "knob": None if one.knob is None else {one.knob.name: one.value},
                "speed": None if one.speed is None else one.speed.as_json(),
            }
            for one in found.together
        ],
        "front": [_plan_json(plan, found.prices) for plan in found.found.front],
        "rejected": [
            {**_way_json(one.way), "why": why(one, found.goal)} for one in found.found.rejected
        ],
    }  # fmt: skip


def _plan_json(plan: Plan, prices: Mapping[Device, Any]) -> dict[str, Any]:
    price = prices.get(plan.way.device)
    figures = {
        name.replace("-", "_"): None if math.isnan(value) else round(value, 6)
        for name, value in plan.figures.items()
        if name in BY_NAME or name == "context"
    }
    return {
        **_way_json(plan.way),
        "figures": figures,
        "on_front": plan.on_front,
        "price_as_of": price.as_of if price else None,
    }


def _way_json(way: Way) -> dict[str, Any]:
    layout = way.layout
    return {
        "device": device_name(way.device),
        "count": way.count,
        "engine": way.engine,
        "tensor_parallel": layout.tensor,
        "pipeline_parallel": layout.pipeline,
        "data_parallel": layout.data,
        "expert_parallel": layout.experts,
        "replicas": layout.replicas,
        "format": way.subject.recipe.name,
        "kv_dtype": way.kv_dtype,
        "verdict": way.verdict,
        "peak_bytes": way.peak_bytes,
        "spare_bytes": way.spare_bytes,
    }


def render(found: Planned, console: Console, rejected: bool, prompt: AskedPrompt | None = None) -> None:
    """Print the plans.

    Parameters
    ----------
    rejected
        Also why every device without a plan has none.
    prompt
        What was counted.
    """
    asked = found.question
    console.print()
    users = f"{asked.users:,} user{'s' if asked.users > 1 else ''}"
    title = Text.assemble(" ", (found.asked.model, "bold"), f" for {users} of {asked.context:,} tokens: ")
    title.append(f"{found.found.fitting:,} of {found.found.judged:,} ways fit; {_GOALS[found.goal]}")
    print_text(console, title, 0)
    if prompt is not None:
        print_text(console, Text(f"· {prompt.in_words()}", style="dim"), 2, 2)
    console.print()
    if found.plans:
        console.print(Padding(_table(found, console.width), (0, 2)))
        more = len(found.found.plans) - len(found.plans)
        if more:
            print_text(console, Text(f"and {more} more: --most {len(found.found.plans)}", style="dim"), 2)
        console.print()
        for line in _legend(found):
            print_text(console, Text(f"· {line}", style="dim"), 2, 2)
    else:
        _render_nothing(found, console)
    console.print()
    if found.together:
        print_text(console, Text("All devices together", style="bold"), 2)
        for answer in found.together:
            print_text(console, _together_words(answer), 2, 2)
        console.print()
    shown = found.found.rejected if rejected else found.found.rejected[: _FEW if not found.plans else 0]
    if shown:
        print_text(console, Text("Not among them, those that came closest first", style="bold"), 2)
        for one in shown:
            style = "" if one.figures else "dim"
            print_text(console, Text(f"✘ {_way_words(one.way)}: {why(one, found.goal)}", style=style), 2, 2)
        console.print()
    elif found.found.rejected and found.plans:
        without = len(found.found.rejected)
        rest = f"{without} kind{'s' if without > 1 else ''} of devices without a plan: --rejected says why"
        print_text(console, Text(rest, style="dim"), 2)
        console.print()


def _render_nothing(found: Planned, console: Console) -> None:
    """What is in the way, and the nearest thing that would do."""
    closest = found.found.rejected[0] if found.found.rejected else None
    if closest is None:
        print_text(console, Text("no device to plan for", style="red"), 2)
        return
    print_text(console, Text(f"nothing does: {why(closest, found.goal)}", style="red"), 2)
    way, context = closest.way, found.question.context
    nearest = f"nearest: {_way_words(way)}"
    if closest.broken:
        kept = (
            f"{one.kind.name} {said(one.kind.name, closest.figures[one.kind.name])}" for one in closest.broken
        )
        nearest += f", with {', '.join(kept)}"
    elif way.room:
        nearest += f", for {way.room:,} user{'s' if way.room > 1 else ''} of {context:,} tokens"
    print_text(console, Text(nearest), 2)


def _together_words(one: Together) -> Text:
    """An engine, the finest format that fits, what goes where, and how fast."""
    estimate = one.estimate
    sign, words, style = VERDICT_STYLE[estimate.verdict]
    line = Text.assemble((f"{sign} ", style), f"{estimate.engine}, {one.subject.recipe.name}: {words}")
    held = ", ".join(
        f"{format_bytes(place.peak_bytes)} on {place.name}"
        for place in (*estimate.devices, *([estimate.host] if estimate.host.peak_bytes else []))
    )
    if one.knob is not None:
        line.append(f" with {one.knob.name} at {one.value}")
    line.append(f"; {held}" if not estimate.refusal else f"; {estimate.refusal}")
    if one.speed is not None:
        line.append(f"; {one.speed.figures['tokens_per_s_per_user'].value:,.1f} tok/s of each user")
    return line


def why(one: Rejected, goal: str) -> str:
    """Why a device has no plan, in a line."""
    way = one.way
    if one.broken:
        return "; ".join(
            f"{limit.text} is not kept: {said(limit.kind.name, one.figures[limit.kind.name])}"
            for limit in one.broken
        )
    if one.figures:
        return f"its {'price' if goal in ('price', 'cost') else 'speed'} is not known"
    if way.reason:
        return way.reason
    if way.verdict == "tight":
        return "may fit, but not surely"
    each = " each" if way.count > 1 else ""
    lacking = format_bytes(max(0, -way.spare_bytes))
    usable = way.device.usable_bytes or 0
    if way.peak_bytes > usable:
        return f"{format_bytes(way.peak_bytes)} of {format_bytes(usable)} are needed{each}"
    short = f"{lacking} are missing for the cache{each}"
    return f"it holds {way.room:,} of the users; {short}" if way.room else short


def _table(found: Planned, width: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    table.add_column("devices", overflow="fold")
    table.add_column("how", overflow="fold")
    names = ["price", "users", "per-user", "full", "first-token", "headroom"]
    if found.goal == "cost":
        names[1] = "cost"
    if found.goal == "context":
        names[1] = "context"
    if width < _WIDE:
        names = names[:4]
    if not any(plan.way.device in found.prices for plan, _ in found.plans):
        names.remove("price")
    for name in names:
        table.add_column(_HEADS[name], justify="right", no_wrap=True)
    for plan, _ in found.plans:
        table.add_row(*_cells(plan, names))
    return table


_HEADS = {
    "price": "$/h", "cost": "$/M tok", "users": "users", "first-token": "first", "per-user": "tok/s",
    "full": "all", "headroom": "spare", "context": "context",
}  # fmt: skip


def _cells(plan: Plan, names: Sequence[str]) -> list[Text | str]:
    way = plan.way
    return [
        Text("★" if plan.on_front else " ", "yellow"),
        f"{way.count} × {device_name(way.device)}",
        _how(way),
        *(said(name, plan.figures[name]) for name in names),
    ]


def _how(way: Way) -> str:
    """Format, cache and layout."""
    parts = [short_format(way)]
    if way.kv_dtype != "auto":
        parts.append(f"KV {way.kv_dtype}")
    if way.count > 1:
        parts.append(str(way.layout))
    return ", ".join(parts)


def _legend(found: Planned) -> list[str]:
    lines = []
    if any(plan.on_front for plan, _ in found.plans):
        cost = "cheaper" if found.goal in ("price", "cost") else "of fewer devices"
        lines.append(f"★ nothing {cost} is as fast, for all and for each, in as fine a format")
    lines.append(
        "users: the most that fit at once; tok/s: of each user that was asked for; all: of all that fit; "
        "first: seconds of a prompt of the whole context"
    )
    engines = {f"{one.estimate.engine} {one.estimate.engine_version}" for _, one in found.plans}
    lines.append(f"engine: {', '.join(sorted(engines))}")
    sure = [one.speed for _, one in found.plans if one.speed is not None]
    if sure:
        figure = sure[0].figures["tokens_per_s"]
        lines.append(
            f"speeds are between {figure.low / figure.value:.0%} and {figure.high / figure.value:.0%} of these"
        )
    dates = sorted(
        {found.prices[plan.way.device].as_of for plan, _ in found.plans if plan.way.device in found.prices}
    )
    if dates:
        when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
        lines.append(f"prices: list prices of {when}, the lowest found; your own with --prices FILE")
    if found.unpriced:
        kinds = "1 kind of device has" if found.unpriced == 1 else f"{found.unpriced} kinds of devices have"
        lines.append(f"{kinds} no price, and no plan: --prices FILE, or --goal devices")
    return lines


def _way_words(way: Way) -> str:
    return f"{way.count} × {device_name(way.device)}, {_how(way)}"


def short_format(way: Way) -> str:
    """A format in a word or two."""
    return way.subject.recipe.name.removeprefix("gguf ").split(" per ")[0]


def device_name(device: Device) -> str:
    """A device's name with its size, where it is sold in several."""
    if not device.memory_options_bytes:
        return device.name
    return f"{device.name}, {(device.marketing_bytes or 0) // GIB} GB"


def said(name: str, value: float) -> str:
    """A figure with its unit."""
    if math.isnan(value):
        return "-"
    if name in ("price", "cost"):
        return f"{value:,.2f}"
    if name == "headroom":
        return f"{value:.0%}"
    if name == "first-token":
        return f"{value:,.1f} s" if value < 100 else f"{value:,.0f} s"
    if name == "bits":
        return f"{value:.2f}"
    if name == "per-user":
        return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
    return f"{value:,.0f}"
