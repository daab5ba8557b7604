"""A trace's timeline as one page of HTML that needs no network: the chart, and what is alive at the peak."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from html import escape
from pathlib import Path

from willfit.errors import BadInput
from willfit.pictures.palette import CATEGORIES, DARK, LIGHT, THEMES, Theme
from willfit.quantities import format_bytes
from willfit.tracing.attribution import alive_at, phase_peaks
from willfit.tracing.export.tables import (
    categories_table,
    contributors_table,
    layers_table,
    phases_table,
)  # fmt: skip
from willfit.tracing.export.view import Caption, View, step_word, steps, top_of, view, words_of
from willfit.tracing.trace import Trace

#: Events that the page has at most: several for each pixel, so that zooming in shows more, and still at once drawn.
POINTS = 4000
_PAGE = Path(__file__).parent / "page"
_SLOT = re.compile(r"\{\{(\w+)\}\}")


def timeline(trace: Trace, caption: Caption) -> str:
    """A page: what is alive after each event by category, zoomable, and tables of what is alive at the peak.

    Parameters
    ----------
    trace
        What to show.
    caption
        Title and settings; the allocator's reserved bytes and the device's limit are drawn if it has them.

    Raises
    ------
    BadInput
        If the trace is malformed, or plotly is not installed.
    """
    seen, alive = view(trace, POINTS, caption.reserved), alive_at(trace)
    word = step_word(trace)
    tables = [
        f'<section class="card wide">{contributors_table(alive)}</section>',
        f'<div class="two"><section class="card">{categories_table(alive)}</section>'
        f'<section class="card">{phases_table(phase_peaks(trace), word)}</section></div>',
        '<section class="card"><details><summary>Layers at the peak</summary>'
        f"{layers_table(alive)}</details></section>",
    ]
    peak = trace.peak_event
    made = trace.storages[trace.events[peak]]
    slots = {
        "title": escape(caption.title),
        "settings": escape(caption.settings),
        "label": escape(
            f"Memory over time; {format_bytes(seen.totals[seen.peak])} at the peak, in {words_of(made)}"
        ),
        "figures": _figures(seen, caption),
        "tables": "\n".join(tables),
        "footer": _footer(trace),
        "style": _colours() + _read("timeline.css"),
        "script": _read("timeline.js"),
        "data": _json(_data(trace, seen, caption, word)),
        "plotly": _plotly(),
    }
    return _SLOT.sub(lambda slot: slots[slot.group(1)], _read("timeline.html"))


def _read(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise BadInput(
            "the timeline needs plotly, which is not installed", "pip install 'willfit[trace]'"
        ) from None
    script: str = get_plotlyjs()
    return script


def _json(value: object) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _data(trace: Trace, seen: View, caption: Caption, word: str) -> dict[str, object]:
    words: dict[str, int] = {}

    def place(text: str) -> int:
        return words.setdefault(text, len(words))

    changes = []
    for event in seen.events:
        change = trace.events[event]
        storage = trace.storages[change if change >= 0 else ~change]
        where = storage.place
        changes.append(
            [
                int(change >= 0), place(storage.op), place(storage.name or where.module), place(where.source),
                int(where.again), storage.nbytes,
            ]
        )  # fmt: skip
    rows = [[band.start, band.end, band.phase, band.step, band.micro] for band in seen.bands]
    return {
        "events": seen.events,
        "totals": seen.totals,
        "series": seen.series,
        "reserved": seen.reserved,
        "failed": seen.failed,
        "capacity": caption.capacity,
        "top": top_of(seen, caption.capacity),
        "count": seen.count,
        "peak": seen.peak,
        "bands": rows,
        "steps": [[band.start, band.end, "", band.step] for band in steps(seen.bands)],
        "step": word,
        "micros": max((band.micro for band in seen.bands), default=0),
        "changes": changes,
        "words": list(words),
        "titles": CATEGORIES,
        "themes": {name: asdict(theme) for name, theme in THEMES.items()},
    }


def _figures(seen: View, caption: Caption) -> str:
    found = [("allocated at the peak", seen.totals[seen.peak])]
    if seen.reserved:
        found.append(("reserved at most", max(seen.reserved)))
    if caption.capacity:
        found.append(("device limit", caption.capacity))
    return "".join(
        f'<div><dt>{words}</dt><dd title="{size:,} bytes">{format_bytes(size)}</dd></div>'
        for words, size in found
    )


def _footer(trace: Trace) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in trace.versions.items())
    kernels = ", ".join(f"{name} {count:,}×" for name, count in trace.kernels.items())
    lines = [
        f"Traced {f'with {versions} ' if versions else ''}on a device that is not there ({trace.path}).",
        f"Attention kernels: {kernels}." if kernels else "",
        *trace.notes,
    ]
    return "".join(f"<p>{escape(line)}</p>" for line in lines if line)


def _colours() -> str:
    """Both themes as variables of CSS."""

    def rule(theme: Theme) -> str:
        values = asdict(theme)
        pairs = {**values.pop("categories"), **values}
        return ":root { " + " ".join(f"--{name}: {colour};" for name, colour in pairs.items()) + " }"

    return f"{rule(LIGHT)}\n@media (prefers-color-scheme: dark) {{ {rule(DARK)} }}\n"
