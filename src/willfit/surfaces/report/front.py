"""What is worth its price, as a picture: speed over price or devices, and the line that nothing beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from willfit.pictures.palette import THEMES, Theme
from willfit.pictures.svg import element, fitting, number
from willfit.planning.search.searching import Plan
from willfit.planning.serving_plans import Planned
from willfit.surfaces.report.plan import device_name, said, short_format

WIDTH, HEIGHT = 960, 520
LEFT, RIGHT, TOP, BOTTOM = 84, 700, 84, 460
LEGEND = 724
EDGE = 24
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

#: Colours of formats, the finest first; they differ for people who see fewer colours as well.
_COLOURS = {
    "light": ("#234b8a", "#2f9470", "#e7a52a", "#b5271a", "#9f76d3"),
    "dark": ("#89c4f3", "#2ea984", "#fcbc53", "#ff7a6b", "#b88fee"),
}
#: Marks beside the colours, so that they are told apart without.
_MARKS = ("circle", "square", "diamond", "triangle", "ring")


@dataclass(frozen=True, slots=True)
class _Axis:
    """A logarithmic axis from values to places."""

    least: float
    most: float
    start: float
    end: float

    def at(self, value: float) -> float:
        span = math.log(self.most / self.least) or 1.0
        return self.start + (self.end - self.start) * math.log(value / self.least) / span

    def ticks(self) -> list[float]:
        low, high = math.floor(math.log10(self.least)), math.ceil(math.log10(self.most))
        every = [factor * 10.0**power for power in range(low, high + 1) for factor in (1, 2, 5)]
        return [value for value in every if self.least <= value <= self.most]


def picture(found: Planned, theme: str = "light") -> str:
    """The front as a self-contained SVG.

    Parameters
    ----------
    theme
        `light` or `dark`.
    """
    colours, cost = THEMES[theme], "price" if found.goal in ("price", "cost") else "devices"
    plans = [plan for plan in found.found.front if plan.figures["full"] > 0]
    others = [plan for plan in found.found.plans if plan.figures["full"] > 0 and plan.figures[cost] > 0]
    formats = sorted(
        {short_format(plan.way) for plan in (*plans, *others)},
        key=lambda name: -max(p.figures["bits"] for p in (*plans, *others) if short_format(p.way) == name),
    )
    title = f"{found.asked.model}: what is worth its {'price' if cost == 'price' else 'devices'}"
    words = f"{found.question.users:,} users of {found.question.context:,} tokens; {found.found.fitting:,} ways fit"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-labelledby="t d" font-family="{FONT}" font-size="12">',
        element("title", title, id="t"),
        element("desc", "; ".join(_point_words(plan, cost) for plan in plans[:20]) or "no plan", id="d"),
        element(
            "rect", x=0.5, y=0.5, width=WIDTH - 1, height=HEIGHT - 1, rx=10, fill=colours.card, stroke=colours.line
        ),
        element(
            "text", fitting(title, WIDTH - 2 * EDGE, 18), x=EDGE, y=37, font_size=18, font_weight=600, fill=colours.ink
        ),
        element("text", fitting(words, WIDTH - 2 * EDGE, 12), x=EDGE, y=58, fill=colours.muted),
    ]  # fmt: skip
    if plans or others:
        x = _axis([plan.figures[cost] for plan in (*plans, *others)], LEFT, RIGHT)
        y = _axis([plan.figures["full"] for plan in (*plans, *others)], BOTTOM, TOP)
        shades = {name: at for at, name in enumerate(formats)}
        parts += _grid(x, y, cost, colours)
        parts += _line(plans, x, y, cost, colours)
        for plan in others:
            parts.append(_mark(plan, x, y, cost, shades, theme, 0.35))
        for plan in plans:
            parts.append(_mark(plan, x, y, cost, shades, theme, 1.0))
        parts += _legend(plans, formats, cost, theme, colours)
    return "\n".join(parts) + "\n</svg>\n"


def _axis(values: Sequence[float], start: float, end: float) -> _Axis:
    return _Axis(min(values) / 1.2, max(values) * 1.2, start, end)


def _grid(x: _Axis, y: _Axis, cost: str, theme: Theme) -> list[str]:
    parts = []
    for value in x.ticks():
        at = number(x.at(value))
        parts.append(element("line", x1=at, x2=at, y1=TOP, y2=BOTTOM, stroke=theme.grid))
        parts.append(
            element("text", f"{value:g}", x=at, y=BOTTOM + 18, text_anchor="middle", fill=theme.muted)
        )
    for value in y.ticks():
        at = number(y.at(value))
        parts.append(element("line", x1=LEFT, x2=RIGHT, y1=at, y2=at, stroke=theme.grid))
        parts.append(
            element(
                "text", f"{value:,.0f}", x=LEFT - 8, y=y.at(value) + 4, text_anchor="end", fill=theme.muted
            )
        )
    what = "dollars an hour" if cost == "price" else "devices"
    parts.append(
        element("text", what, x=(LEFT + RIGHT) / 2, y=BOTTOM + 40, text_anchor="middle", fill=theme.ink)
    )
    middle = (TOP + BOTTOM) / 2
    turned = f"rotate(-90 {EDGE} {middle})"
    words = "tokens a second, as many users as fit"
    parts.append(
        element("text", words, x=EDGE, y=middle, text_anchor="middle", fill=theme.ink, transform=turned)
    )
    return parts


def _line(plans: Sequence[Plan], x: _Axis, y: _Axis, cost: str, theme: Theme) -> list[str]:
    """The most that each price gives, in steps."""
    best = 0.0
    path: list[str] = []
    for plan in sorted(plans, key=lambda one: (one.figures[cost], -one.figures["full"])):
        if plan.figures["full"] <= best:
            continue
        best = plan.figures["full"]
        px, py = number(x.at(plan.figures[cost])), number(y.at(best))
        path.append(f"H{px}V{py}" if path else f"M{px} {py}")
    if not path:
        return []
    return [element("path", d="".join(path) + f"H{RIGHT}", fill="none", stroke=theme.muted, stroke_width=1.5)]


def _mark(
    plan: Plan, x: _Axis, y: _Axis, cost: str, shades: dict[str, int], theme: str, opacity: float
) -> str:
    at = shades[short_format(plan.way)]
    colour, mark = _COLOURS[theme][at % 5], _MARKS[at % 5]
    px, py = x.at(plan.figures[cost]), y.at(plan.figures["full"])
    return f"<g>{element('title', _point_words(plan, cost))}{_shape(mark, px, py, colour, opacity)}</g>"


def _shape(mark: str, x: float, y: float, colour: str, opacity: float) -> str:
    if mark in ("circle", "ring"):
        fill = colour if mark == "circle" else "none"
        return element("circle", cx=number(x), cy=number(y), r=4.5, fill=fill, stroke=colour, opacity=opacity)
    corners = {
        "square": ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        "diamond": ((0, -6), (6, 0), (0, 6), (-6, 0)),
        "triangle": ((0, -5.5), (5, 4), (-5, 4)),
    }[mark]
    points = " ".join(f"{number(x + dx)},{number(y + dy)}" for dx, dy in corners)
    return element("polygon", points=points, fill=colour, opacity=opacity)


def _legend(
    plans: Sequence[Plan], formats: Sequence[str], cost: str, theme: str, colours: Theme
) -> list[str]:
    parts, y = [], TOP + 8
    for at, name in enumerate(formats):
        parts.append(_shape(_MARKS[at % 5], LEGEND + 6, y - 4, _COLOURS[theme][at % 5], 1.0))
        parts.append(element("text", fitting(name, 190, 12), x=LEGEND + 20, y=y, fill=colours.ink))
        y += 20
    y += 12
    parts.append(element("text", "nothing beats", x=LEGEND, y=y, font_weight=600, fill=colours.ink))
    seen: set[str] = set()
    for plan in plans:
        words = f"{plan.way.count} × {device_name(plan.way.device)}"
        if words in seen or y > BOTTOM - 24:
            continue
        seen.add(words)
        y += 18
        said_cost = f"${plan.figures['price']:,.2f}" if cost == "price" else ""
        parts.append(element("text", fitting(words, 150, 12), x=LEGEND, y=y, fill=colours.muted))
        parts.append(element("text", said_cost, x=WIDTH - EDGE, y=y, text_anchor="end", fill=colours.muted))
    return parts


def _point_words(plan: Plan, cost: str) -> str:
    way = plan.way
    amount = f"${plan.figures['price']:,.2f} an hour" if cost == "price" else f"{way.count} devices"
    return (
        f"{way.count} × {device_name(way.device)}, {way.layout}, {short_format(way)}: {amount}, "
        f"{said('full', plan.figures['full'])} tokens a second for {said('users', plan.figures['users'])} users"
    )
