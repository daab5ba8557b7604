"""Formats of a model, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from willfit.engines.base import Machine
from willfit.planning.advice import Advice
from willfit.quantities import format_bytes
from willfit.surfaces.report.estimate import VERDICT_STYLE, devices_in_words
from willfit.surfaces.report.lines import print_text

#: How methods are made and calibrated, in words.
_MADE = {
    "not at all": "",
    "after training": "post-training",
    "in training": "quantization-aware",
    "after or in training": "post-training or quantization-aware",
}
_CALIBRATION = {"none": "no calibration", "optional": "calibration helps", "needed": "calibrated"}


def as_json(found: Sequence[Advice]) -> dict[str, Any]:
    """The formats as JSON."""
    subject = found[0].subject
    return {
        "model": subject.model,
        "parameters": subject.architecture.parameters,
        "formats": [_as_json(one) for one in found],
    }


def _as_json(one: Advice) -> dict[str, Any]:
    method, estimate = one.method, one.estimate
    return {
        "format": one.variant.name,
        "method": method.title,
        "stored": one.stored,
        "made": method.made,
        "quantizes": method.reach,
        "calibration": method.calibration,
        "fine_tuning": list(method.trained),
        "source": method.source,
        "when": one.variant.when,
        "weight_bytes": one.subject.weight_bytes,
        "bits_per_weight": round(one.bits_per_weight, 4),
        "engines": list(one.engines),
        "refusals": one.refusals,
        "devices": list(one.kinds),
        "engine": None if estimate is None else estimate.engine,
        "verdict": None if estimate is None else estimate.verdict,
        "probability": None if estimate is None else estimate.probability,
        "spare_bytes": one.spare_bytes,
        "max_context": estimate.capacity.max_context if estimate and estimate.capacity else None,
        "finest": one.finest,
    }


def render(found: Sequence[Advice], machine: Machine | None, console: Console, unable: bool = True) -> None:
    """Print the formats with who loads each, and beneath them what is known of their methods.

    Parameters
    ----------
    unable
        Also those that do not fit on the machine.
    """
    subject = found[0].subject
    answer = next((one.estimate for one in found if one.estimate is not None), None)
    title = Text.assemble(" ", (subject.model, "bold"))
    if answer is not None:
        title.append(f" on {devices_in_words(answer)}")
        title.append(f" with {answer.context:,} tokens" if answer.context else "")
    title.append(": formats, the largest first")
    console.print()
    print_text(console, title, 0)
    console.print()
    shown = [one for one in found if machine is None or unable or _may_fit(one)]
    width = max((len(_name(one)) for one in shown), default=0)
    for one in shown:
        print_text(console, _line(one, width), 1, width + 4)
        print_text(console, Text(f"{one.variant.when}."), 5, 0)
        print_text(console, Text(_loaded(one), style="dim"), 5, 0)
    if len(shown) < len(found):
        console.print()
        print_text(console, Text(f"{len(found) - len(shown)} do not fit: --all", style="dim"), 1)
    console.print()
    print_text(console, Text("Methods", style="bold"), 1)
    methods = dict.fromkeys(one.method.title for one in shown)
    for title_ in methods:
        print_text(console, _method([one for one in shown if one.method.title == title_]), 3, 2)
    console.print()
    _legend(machine, console)


def _may_fit(one: Advice) -> bool:
    return one.estimate is not None and one.estimate.verdict in ("fits", "tight", "unknown")


def _line(one: Advice, width: int) -> Text:
    """Name, bits, size, what is left, how it is made."""
    line = Text()
    if one.estimate is not None:
        sign, _, style = VERDICT_STYLE[one.estimate.verdict]
        line.append(f"{sign} ", style)
    line.append(f"{_name(one):{width}}", "bold")
    line.append(f"  {one.bits_per_weight:5.2f} bits  {format_bytes(one.subject.weight_bytes):>10}")
    if one.estimate is not None:
        line.append(f"  {_left(one):>16}")
    if one.finest:
        sure = "fits" if one.estimate is not None and one.estimate.verdict == "fits" else "may fit"
        return line.append(f"  ← the finest that {sure}", "bold #2fbf71")
    return line.append(f"  {one.stored}", "dim")


def _left(one: Advice) -> str:
    if one.estimate is not None and one.estimate.refusal:
        return "would not start"
    if one.spare_bytes is None:
        return ""
    size = format_bytes(abs(one.spare_bytes))
    return f"{size} left" if one.spare_bytes >= 0 else f"{size} missing"


def _loaded(one: Advice) -> str:
    return f"loaded by {', '.join(one.engines)}" if one.engines else "no engine that is known here loads it"


def _method(rows: Sequence[Advice]) -> Text:
    """How a method's formats are made, where they run, and what can be trained on them."""
    method = rows[0].method
    line = Text.assemble((method.title, "bold"), f" ({', '.join(map(_name, rows))}): ")
    parts = []
    if method.made != "not at all":
        parts = [_MADE[method.made], f"{method.reach} in few bits"]
    if method.made.startswith("after"):
        parts.append(_CALIBRATION[method.calibration])
    parts.append(f"fine-tuning: {', '.join(method.trained)}" if method.trained else "no fine-tuning")
    if rows[0].kinds:
        parts.append(f"on {', '.join(rows[0].kinds)}")
    return line.append("; ".join(parts))


def _name(one: Advice) -> str:
    return one.variant.name or one.subject.recipe.name


def _legend(machine: Machine | None, console: Console) -> None:
    legend = "bits: of all parameters on average. Names are what --format takes"
    if machine is None:
        legend += ". Name a device for what fits and is left: --gpu rtx4090"
    print_text(console, Text(legend, style="dim"), 1)
    console.print()
