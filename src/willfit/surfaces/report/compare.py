"""Two answers side by side in the terminal: verdicts, what differs, term by term, room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.padding import Padding
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from willfit.comparing import Comparison, Figure, PlaceChange, TermChange, signed
from willfit.quantities import format_bytes
from willfit.surfaces.report.estimate import headline, reason, term_name
from willfit.surfaces.report.lines import print_text

#: From this width on the reasons stand in a column of their own.
_WIDE = 110

_MORE, _LESS, _SAME = "#e2677f", "#2fbf71", "dim"

_FIGURES = {
    "cache_needed_bytes": "cache needed",
    "kv_cache_tokens": "tokens in the cache",
    "max_context": "longest context",
    "max_concurrency": "sequences at once",
}


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the table, its reasons beside or below it."""

    name: Text
    a: str
    b: str
    difference: Text
    reasons: Sequence[str] = ()


def render(comparison: Comparison, console: Console, explain: bool = False) -> None:
    """Print a comparison.

    Parameters
    ----------
    explain
        Also print both sides' formulas of each term that differs.
    """
    console.print()
    for side, estimate in (("A", comparison.a), ("B", comparison.b)):
        line = Text.assemble((f" {side} ", "bold reverse"), headline(estimate))
        console.print(line, no_wrap=True, overflow="ellipsis", crop=False)
        print_text(console, reason(estimate), 6)
    console.print()
    for sentence in comparison.summary:
        print_text(console, Text(f"→ {sentence}"), 2, 2)
    console.print()
    if comparison.facts:
        _print_facts(comparison, console)
    device = comparison.device
    names = {place.name.removeprefix("GeForce ") for place in (device.a, device.b)}
    title = "the fullest device" if len(names) > 1 else next(iter(names))
    _print_rows(title, _place_rows(device, explain), console)
    if device.a != comparison.a.host and (comparison.host.a.terms or comparison.host.b.terms):
        _print_rows("host", _place_rows(comparison.host, explain), console)
    if comparison.figures:
        _print_rows("room", _figure_rows(comparison.figures), console)
    if comparison.changes:
        engine, *versions = comparison.a.engine, comparison.a.engine_version, comparison.b.engine_version
        heading = f"What changed in {engine} between {versions[0]} and {versions[1]}"
        if versions[0] == versions[1]:
            heading = f"What the settings change in {engine} {versions[0]}"
        print_text(console, Text(heading, style="bold"), 2)
        for change in comparison.changes:
            print_text(console, Text(f"· {change}"), 2, 2)
        console.print()
    for note in _notes(comparison):
        print_text(console, Text(f"· {note}", style="dim"), 2, 2)
    if _notes(comparison):
        console.print()


def _notes(comparison: Comparison) -> list[str]:
    """The notes of both sides, those of one side with its letter."""
    a, b = comparison.a.notes, comparison.b.notes
    both = [note for note in a if note in b]
    return [
        *both,
        *(f"A: {note}" for note in a if note not in b),
        *(f"B: {note}" for note in b if note not in a),
    ]


def _print_facts(comparison: Comparison, console: Console) -> None:
    """In what the questions differ."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("what differs", style="dim", no_wrap=True)
    for side in "AB":
        table.add_column(side, overflow="fold")
    for fact in comparison.facts:
        table.add_row(fact.what, fact.a, fact.b)
    console.print(Padding(table, (0, 2, 1, 2)))


def _place_rows(place: PlaceChange, explain: bool) -> list[_Row]:
    rows = []
    for term in sorted(place.terms, key=lambda term: -abs(term.difference_bytes)):
        rows.append(
            _Row(
                term_name(term.name),
                _size(term.a_bytes) if term.a else "",
                _size(term.b_bytes) if term.b else "",
                _difference(term.difference_bytes),
                _term_reasons(term, explain),
            )
        )
    total = _difference(place.difference_bytes)
    total.stylize("bold")
    a, b = place.a.peak_bytes, place.b.peak_bytes
    rows.append(_Row(Text("  total", style="bold"), _size(a), _size(b), total))
    return rows


def _term_reasons(term: TermChange, explain: bool) -> list[str]:
    """The reasons; both formulas where nothing explains the difference, or if they are asked for."""
    reasons = [f"{signed(reason.difference)}  {reason.words}" for reason in term.reasons]
    if term.difference_bytes and explain:
        for side, formula, reference in zip("AB", term.formulas, term.references, strict=True):
            reasons += [f"{side} = {formula}"] if formula else []
            reasons += [f"{side} from {reference}"] if reference else []
    return reasons


def _figure_rows(figures: Sequence[Figure]) -> list[_Row]:
    rows: list[_Row] = []
    for figure in figures:
        sized = figure.name.endswith("_bytes")
        a, b = (
            "" if value is None else (_size if sized else _count)(value) for value in (figure.a, figure.b)
        )
        change = Text("")
        if figure.difference is not None:
            change = (_difference if sized else _count_difference)(figure.difference)
        reasons = [
            f"{(signed if sized else _signed)(reason.difference)}  {reason.words}"
            for reason in figure.reasons
        ]
        rows.append(_Row(Text(f"  {_FIGURES[figure.name]}"), a, b, change, reasons))
    return rows


def _print_rows(title: str, rows: Sequence[_Row], console: Console) -> None:
    wide = console.width >= _WIDE
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    table.add_column(title, no_wrap=True, min_width=23)
    for side in "AB":
        table.add_column(side, justify="right", no_wrap=True, min_width=11)
    table.add_column("difference", justify="right", no_wrap=True, min_width=12)
    if wide:
        table.add_column("why", style="dim")
        for row in rows:
            table.add_row(row.name, row.a, row.b, row.difference, "\n".join(row.reasons))
        console.print(Padding(table, (0, 2, 1, 2)))
        return
    for row in rows:
        table.add_row(row.name, row.a, row.b, row.difference)
    # One table keeps the columns aligned; its lines are printed one by one, with the reasons between them.
    heading, *lines = console.render_lines(table, pad=False)
    _print_line(heading, console)
    for line, row in zip(lines, rows, strict=True):
        _print_line(line, console)
        for why in row.reasons:
            print_text(console, Text(why, style="dim"), 6, 2)
    console.print()


def _print_line(line: Sequence[Segment], console: Console) -> None:
    console.print(Segments([Segment("  "), *line, Segment.line()]), end="")


def _size(size: float) -> str:
    return format_bytes(size)


def _difference(size: float) -> Text:
    return Text(signed(size), style=_MORE if size > 0 else _LESS if size < 0 else _SAME)


def _count(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _signed(value: float) -> str:
    sign = "+" if value > 0 else "−" if value < 0 else ""
    return f"{sign}{_count(abs(value))}"


def _count_difference(value: float) -> Text:
    return Text(_signed(value), style=_LESS if value > 0 else _MORE if value < 0 else _SAME)
