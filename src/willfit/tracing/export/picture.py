"""A trace's timeline as a picture: a self-contained SVG, for a page or a README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from willfit.errors import BadInput
from willfit.pictures.palette import CATEGORIES, THEMES, Theme
from willfit.pictures.svg import (
    area,
    clean,
    element,
    fitting,
    number,
    steps_along,
    ticks,
    width_of,
)  # fmt: skip
from willfit.quantities import format_bytes
from willfit.tracing.export.view import Band, Caption, View, step_word, steps, top_of, view
from willfit.tracing.trace import Trace

WIDTH, HEIGHT = 960, 440
#: The chart's frame inside the picture; the legend is at its right.
LEFT, RIGHT, TOP, BOTTOM = 66, 728, 104, 396
LEGEND = 752
EDGE = 24
#: Room over the highest value.
HEADROOM = 1.06
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
#: Categories that never are so large a share of the chart's height are no line to see: the legend sums them up.
VISIBLE = 0.5 / (BOTTOM - TOP)
#: What phases are called where there is little room.
SHORT = {"forward": "fwd", "backward": "bwd", "optimizer": "optim", "prefill": "pre"}


@dataclass(frozen=True, slots=True)
class _Scale:
    """From events and bytes to places in the picture."""

    count: int
    most: float

    def x(self, event: float) -> float:
        return LEFT + (RIGHT - LEFT) * event / self.count

    def y(self, size: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * size / self.most


def picture(trace: Trace, caption: Caption, theme: str = "light") -> str:
    """A trace as an SVG: what is alive after each event by category, phases, and the peak.

    Parameters
    ----------
    trace
        What to show.
    caption
        Title and settings; the allocator's reserved bytes and the device's limit are drawn if it has them.
    theme
        `light` or `dark`.

    Raises
    ------
    BadInput
        If the trace is malformed, or no theme is called that.
    """
    if theme not in THEMES:
        raise BadInput(f"no theme is called {theme!r}", f"known: {', '.join(THEMES)}")
    colours, seen = THEMES[theme], view(trace, RIGHT - LEFT, caption.reserved)
    peak = seen.totals[seen.peak]
    scale = _Scale(seen.count, top_of(seen, caption.capacity) * HEADROOM)
    words = f"{clean(caption.title)}: {format_bytes(peak)} at the peak"
    said = ", ".join(
        f"{CATEGORIES[name]} {format_bytes(seen.series[name][seen.peak])}" for name in seen.series
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-labelledby="t d" font-family="{FONT}" font-size="12">',
        element("title", words, id="t"),
        element("desc", f"Memory over {seen.count:,} allocations and frees. At the peak: {said}.", id="d"),
        element(
            "rect", x=0.5, y=0.5, width=WIDTH - 1, height=HEIGHT - 1, rx=10, fill=colours.card, stroke=colours.line
        ),
        *_heading(caption, peak, colours),
        *_phases(seen.bands, step_word(trace), scale, colours),
        *_axis(scale, colours),
        *_areas(seen, scale, colours),
        *_limits(seen, caption, scale, colours),
        *_peak(seen, scale, colours),
        *_legend(seen, caption, colours),
    ]  # fmt: skip
    return "\n".join(parts) + "\n</svg>\n"


def _heading(caption: Caption, peak: int, theme: Theme) -> list[str]:
    size = format_bytes(peak)
    room = WIDTH - 2 * EDGE - width_of(size, 24) - 90
    return [
        element(
            "text",
            fitting(caption.title, room, 18),
            x=EDGE,
            y=37,
            font_size=18,
            font_weight=600,
            fill=theme.ink,
        ),
        element("text", fitting(caption.settings, room, 12), x=EDGE, y=58, fill=theme.muted),
        element(
            "text",
            size,
            x=WIDTH - EDGE,
            y=40,
            text_anchor="end",
            font_size=24,
            font_weight=600,
            fill=theme.ink,
        ),
        element("text", "allocated at the peak", x=WIDTH - EDGE, y=58, text_anchor="end", fill=theme.muted),
    ]


def _phases(bands: Sequence[Band], step_word: str, scale: _Scale, theme: Theme) -> list[str]:
    """Shades behind the chart, names of phases over it, and of steps over these."""
    found = []
    for i, band in enumerate(bands):
        x, width = scale.x(band.start), scale.x(band.end) - scale.x(band.start)
        if i % 2 == 0:
            found.append(
                element(
                    "rect",
                    x=number(x),
                    y=TOP - 16,
                    width=number(width),
                    height=BOTTOM - TOP + 16,
                    fill=theme.band,
                )
            )
        for words in (band.phase, SHORT.get(band.phase, band.phase)):
            if width_of(words, 10) + 4 <= width:
                found.append(_over(words, x + width / 2, TOP - 4, theme.muted))
                break
    for band in steps(bands):
        x, end = scale.x(band.start), scale.x(band.end)
        words = f"{step_word} {band.step}" if band.step else ""
        if words and width_of(words, 10) + 8 <= end - x:
            y, half = TOP - 24, width_of(words, 10) / 2 + 6
            middle = (x + end) / 2
            for start, stop in ((x + 1, middle - half), (middle + half, end - 1)):
                found.append(f'<path d="M{number(start)} {y}H{number(stop)}" stroke="{theme.line}"/>')
            found.append(_over(words, middle, y + 3.5, theme.ink))
    return found


def _over(words: str, x: float, y: float, colour: str) -> str:
    return element("text", words, x=number(x), y=y, text_anchor="middle", font_size=10, fill=colour)


def _axis(scale: _Scale, theme: Theme) -> list[str]:
    found = []
    for size, words in ticks(int(scale.most)):
        y = number(scale.y(size))
        found.append(f'<path d="M{LEFT} {y}H{RIGHT}" stroke="{theme.grid if size else theme.muted}"/>')
        found.append(
            element(
                "text", words, x=LEFT - 8, y=y, dy="0.35em", text_anchor="end", font_size=11, fill=theme.muted
            )
        )
    words = f"{scale.count:,} allocations and frees, in order"
    found.append(
        element("text", words, x=(LEFT + RIGHT) // 2, y=BOTTOM + 22, text_anchor="middle", font_size=11,
                fill=theme.muted)
    )  # fmt: skip
    return found


def _areas(seen: View, scale: _Scale, theme: Theme) -> list[str]:
    xs = [scale.x(0), *(scale.x(event) for event in seen.events[1:])]
    below = [0] * len(xs)
    found = []
    for name, sizes in seen.series.items():
        above = [a + b for a, b in zip(below, sizes, strict=True)]
        upper, lower = ([round(scale.y(size), 1) for size in side] for side in (above, below))
        found.append(
            element("path", d=area(xs, upper, lower, RIGHT), fill=theme.categories[name], class_=name)
        )
        below = above
    return found


def _limits(seen: View, caption: Caption, scale: _Scale, theme: Theme) -> list[str]:
    found = []
    if seen.reserved:
        xs = [scale.x(0), *(scale.x(event) for event in seen.events[1 : len(seen.reserved)])]
        ys = [round(scale.y(size), 1) for size in seen.reserved]
        start, end = f"M{LEFT} {number(ys[0])}", RIGHT if seen.failed is None else scale.x(seen.failed)
        found.append(
            f'<path d="{start}{steps_along(xs, ys, end)}" fill="none" stroke="{theme.reserved}" stroke-width="1.6"/>'
        )
    if 0 < caption.capacity <= scale.most:
        y = number(scale.y(caption.capacity))
        found.append(
            f'<path d="M{LEFT} {y}H{RIGHT}" stroke="{theme.limit}" stroke-width="1.4" stroke-dasharray="6 4"/>'
        )
    if seen.failed is not None:
        x, words = scale.x(seen.failed), "out of memory"
        before = x - 6 - width_of(words, 11) > LEFT  # the peak's words are mostly after it
        found.append(f'<path d="M{number(x)} {BOTTOM}V{TOP}" stroke="{theme.limit}" stroke-width="1.4"/>')
        found.append(
            element(
                "text", words, x=number(x + (-6 if before else 6)), y=TOP + 12, font_size=11, font_weight=600,
                text_anchor="end" if before else "start", fill=theme.limit,
            )
        )  # fmt: skip
    return found


def _peak(seen: View, scale: _Scale, theme: Theme) -> list[str]:
    """A dot at the peak and a line down; its bytes on the side that has more room, on a ground of their own."""
    event, size = seen.events[seen.peak], seen.totals[seen.peak]
    x, y = scale.x(event), scale.y(size)
    words = format_bytes(size)
    width = width_of(words, 12) + 12
    left = x + 10 if x + 10 + width < RIGHT else x - 10 - width
    return [
        f'<path d="M{number(x)} {BOTTOM}V{number(y)}" stroke="{theme.peak}" stroke-dasharray="2 3"/>',
        element("circle", cx=number(x), cy=number(y), r=4, fill=theme.peak, stroke=theme.card, stroke_width=1.5),
        f'<rect x="{number(left)}" y="{number(y - 10)}" width="{number(width)}" height="20" rx="4" fill="{theme.card}" '
        f'stroke="{theme.line}"/>',
        element(
            "text", words, x=number(left + width / 2), y=number(y + 4.2), text_anchor="middle", font_weight=600,
            fill=theme.ink,
        ),
    ]  # fmt: skip


def _legend(seen: View, caption: Caption, theme: Theme) -> list[str]:
    """Categories from the top of the stack to its bottom with their bytes at the peak; then the lines."""
    right, y = WIDTH - EDGE, TOP
    found = [
        element("text", "at the peak", x=right, y=y - 4, text_anchor="end", font_size=11, fill=theme.muted)
    ]
    least = VISIBLE * top_of(seen, caption.capacity)
    others = [name for name, sizes in seen.series.items() if max(sizes) < least]
    for name in reversed(seen.series):
        if name in others:
            continue
        size = seen.series[name][seen.peak]
        y += 22
        found.append(
            element("rect", x=LEGEND, y=y - 10, width=12, height=12, rx=3, fill=theme.categories[name])
        )
        found.extend(_row(CATEGORIES[name], format_bytes(size) if size else "–", y, right, theme))
    rest = sum(seen.series[name][seen.peak] for name in others)
    if rest:
        y += 22
        found.extend(_row("others", format_bytes(rest), y, right, theme))
    lines = []
    if seen.reserved:
        lines.append(("reserved", max(seen.reserved), theme.reserved, ""))
    if caption.capacity:
        lines.append(("device limit", caption.capacity, theme.limit, "4 3"))
    for words, size, colour, dashes in lines:
        y += 22
        found.append(
            element(
                "path",
                d=f"M{LEGEND} {y - 4}h12",
                stroke=colour,
                stroke_width=2,
                stroke_dasharray=dashes or None,
            )
        )
        found.extend(_row(words, format_bytes(size), y, right, theme))
    return found


def _row(words: str, size: str, y: float, right: float, theme: Theme) -> list[str]:
    return [
        element("text", words, x=LEGEND + 20, y=y, fill=theme.ink),
        element("text", size, x=right, y=y, text_anchor="end", fill=theme.muted),
    ]
