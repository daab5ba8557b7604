"""An estimate in the terminal: verdict, a bar for each device, the table, what to change."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from willfit.estimate import VERDICTS, DeviceEstimate, Estimate, Term, Verdict, term_in_words
from willfit.quantities import GIB, format_bytes
from willfit.surfaces.report.lines import print_text
from willfit.surfaces.report.speed import render_speed

#: One colour per term, the same in every picture.
COLOURS: dict[str, str] = {
    "weights": "#4c8dff",
    "kv_cache": "#2fbf71",
    "recurrent_state": "#7fd1ae",
    "activations": "#f2a33a",
    "logits": "#e8c547",
    "cuda_graphs": "#b06fe0",
    "runtime": "#e2677f",
    "context": "#8a94a6",
    "fragmentation": "#c98f62",
    "communication": "#5fc4d6",
}
_OTHER_COLOUR = "#d0d4dc"

VERDICT_STYLE: dict[Verdict, tuple[str, str, str]] = {
    "fits": ("✔", "fits", "bold #2fbf71"),
    "tight": ("≈", "tight", "bold #f2a33a"),
    "does_not_fit": ("✘", "does not fit", "bold #e2677f"),
    "unknown": ("?", "unknown", "bold #8a94a6"),
}


def render(estimate: Estimate, console: Console, explain: bool = False) -> None:
    """Print an estimate.

    Parameters
    ----------
    explain
        Also print each term's formula with its numbers, and its reference.
    """
    console.print()
    console.print(headline(estimate), no_wrap=True, overflow="ellipsis", crop=False)
    print_text(console, reason(estimate), 3)
    console.print()
    width = max(30, min(console.width, 110) - 4)
    groups = _alike(estimate.devices)
    for places in groups:
        numbered = sum(other[0].name == places[0].name for other in groups) > 1
        console.print(Padding(_device(places, width, numbered), (0, 2)))
        console.print(Padding(term_table(places[0]), (0, 2, 1, 2)))
    if estimate.host.terms:
        console.print(Padding(_device([estimate.host], width), (0, 2)))
        console.print(Padding(term_table(estimate.host), (0, 2, 1, 2)))
    if estimate.host.page_cache:
        print_text(console, _page_cache(estimate), 2)
        console.print()
    if estimate.capacity is not None and estimate.capacity.max_context:
        print_text(console, _capacity(estimate), 2)
        console.print()
    if "speed" in estimate.details:
        render_speed(estimate.details["speed"], console)
    if estimate.verdict in ("does_not_fit", "tight") and estimate.remedies:
        title = (
            "What would make it fit"
            if estimate.verdict == "does_not_fit"
            else "What would make it sure to fit"
        )
        print_text(console, Text(title, style="bold"), 2)
        for remedy in estimate.remedies:
            print_text(console, Text(f"→ {remedy}"), 2, 2)
        console.print()
    if explain:
        _explain(estimate, console)
    for note in estimate.notes:
        print_text(console, Text(f"· {note}", style="dim"), 2, 2)
    if estimate.notes:
        console.print()


def headline(estimate: Estimate) -> Text:
    """The verdict in one line."""
    sign, words, style = VERDICT_STYLE[estimate.verdict]
    if estimate.refusal:
        words = "would not start"
    line = Text.assemble((f" {sign} {words}", style), "  ", (estimate.model, "bold"))
    line.append(f" on {devices_in_words(estimate)}, {estimate.engine} {estimate.engine_version}".rstrip())
    return line


def reason(estimate: Estimate) -> Text:
    """What decides, and how sure that is."""
    line = Text(_reason(estimate))
    chance = estimate.probability
    if chance is not None and not estimate.refusal:
        what = "it fits" if chance >= 0.5 else "it does not fit"
        line.append(f"; {_percent(max(chance, 1 - chance))} sure that {what}", style="dim")
    return line


def _page_cache(estimate: Estimate) -> Text:
    """What the kernel keeps of mapped files while there is room."""
    size = sum(term.bytes for term in estimate.host.page_cache)
    line = Text(f"and {format_bytes(size)} of mapped files in the page cache")
    line.append(", which the kernel may drop and read again", style="dim")
    return line


def _explain(estimate: Estimate, console: Console) -> None:
    """Each term's formula with its numbers, and where the rule is from."""
    print_text(console, Text("How each term comes about", style="bold"), 2)
    host = [[estimate.host]] if estimate.host.terms or estimate.host.page_cache else []
    for places in [*_alike(estimate.devices), *host]:
        for term in (*places[0].terms, *places[0].page_cache):
            print_text(console, Text.assemble(_name(term), f"  {term.bytes:,} B"), 2)
            if term.formula:
                print_text(console, Text(f"= {term.formula}"), 4, 2)
            if term.reference:
                print_text(console, Text(term.reference, style="dim"), 4, 2)
            console.print()


def devices_in_words(estimate: Estimate) -> str:
    """`4 x L40S`, `RTX 3090 + RTX 4090`; the processor where nothing else is used."""
    if not estimate.devices:
        return "CPU"
    counted = [
        (name, len(list(group))) for name, group in groupby(device.name for device in estimate.devices)
    ]
    short = [(name.removeprefix("GeForce "), count) for name, count in counted]
    return " + ".join(f"{count} × {name}" if count > 1 else name for name, count in short)


def _reason(estimate: Estimate) -> str:
    if estimate.refusal:
        return estimate.refusal
    for demand in estimate.demands:
        if demand.verdict != "fits":
            if demand.pool_bytes <= 0:
                return f"weights and run-time memory leave no room for the cache of {demand.what}"
            pool = format_bytes(demand.pool_bytes)
            return f"{demand.what}: {format_bytes(demand.needed_bytes)} of cache needed, {pool} left for it"
    worst = _fullest(estimate)
    if worst.usable_bytes is None:
        return f"it needs {format_bytes(worst.peak_bytes)}"
    size = f"{format_bytes(worst.peak_bytes)} of {format_bytes(worst.usable_bytes)}"
    if worst is estimate.host:
        files = sum(term.bytes for term in worst.page_cache)
        return f"RAM: {size}" + (f", beside {format_bytes(files)} of mapped files" if files else "")
    if len({place.name for place in estimate.devices}) > 1:
        return f"{worst.name.removeprefix('GeForce ')}: {size}"
    return size


def _fullest(estimate: Estimate) -> DeviceEstimate:
    """The place that decides: that with the worst verdict, and of these the fullest; the host only if it is worse."""
    places = list(estimate.devices) or [estimate.host]
    if estimate.host.usable_bytes is not None:
        places.append(estimate.host)

    def key(place: DeviceEstimate) -> tuple[int, bool, float]:
        share = place.peak_bytes / (place.usable_bytes or place.peak_bytes or 1)
        return VERDICTS.index(place.verdict), place is not estimate.host, share

    return max(places, key=key)


def _percent(chance: float) -> str:
    if chance > 0.995:
        return ">99 %"
    return f"{100 * chance:.0f} %"


def _alike(devices: tuple[DeviceEstimate, ...]) -> list[list[DeviceEstimate]]:
    """Runs of devices that hold the same."""
    return [list(group) for _, group in groupby(devices, key=lambda place: (place.name, place.terms))]


def _device(places: list[DeviceEstimate], width: int, numbered: bool = False) -> RenderableType:
    place = places[0]
    title = Text(f"{len(places)} × {place.name}, each" if len(places) > 1 else place.name, style="bold")
    if numbered:
        # Devices of one name that do not hold the same.
        title.append(f" #{place.index}" + (f" to #{places[-1].index}" if len(places) > 1 else ""))
    low, high = place.interval_bytes
    size = format_bytes(place.peak_bytes)
    if high - low > place.peak_bytes // 500:
        size += f" ({_from_to(low, high)})"
    if place.usable_bytes is not None:
        size += f" of {format_bytes(place.usable_bytes)} usable"
    title.append(f"   {size}", style="dim")
    return Group(title, bar(place, width), Text(""))


def _from_to(low: int, high: int) -> str:
    """Both ends in short if they are of the same order."""
    if low >= GIB:
        return f"{low / GIB:.1f} to {high / GIB:.1f}"
    return f"{format_bytes(low)} to {format_bytes(high)}"


def bar(place: DeviceEstimate, width: int) -> Text:
    """The terms as one stacked bar, scaled so that usable memory, and anything beyond it, is seen."""
    scale = max(place.usable_bytes or 0, place.peak_bytes) or 1
    limit = place.usable_bytes
    line = Text()
    done = 0.0
    drawn = 0
    for term in place.terms:
        done += term.bytes
        until = round(width * done / scale)
        cells = max(0, until - drawn)
        if term.bytes and not cells and drawn < width:
            cells = 1
        line.append("█" * cells, style=COLOURS.get(term.name, _OTHER_COLOUR))
        drawn += cells
    line.append("░" * max(0, width - drawn), style="dim")
    if limit is not None and place.peak_bytes > limit:
        mark = min(width - 1, round(width * limit / scale))
        line = Text.assemble(line[:mark], ("┃", "bold red"), line[mark + 1 :])
    return line


def term_table(place: DeviceEstimate) -> Table:
    """The terms of one device with their sizes and intervals."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column("term")
    table.add_column("size", justify="right")
    table.add_column("share", justify="right", style="dim")
    table.add_column("interval", style="dim")
    total = place.peak_bytes or 1
    for term in place.terms:
        table.add_row(
            _name(term), format_bytes(term.bytes), f"{100 * term.bytes / total:.0f} %", _range(term)
        )
    table.add_row(Text("  total", style="bold"), Text(format_bytes(place.peak_bytes), style="bold"), "", "")
    return table


def _name(term: Term) -> Text:
    return term_name(term.name)


def term_name(name: str) -> Text:
    """A term in words, with its colour."""
    return Text.assemble(("■ ", COLOURS.get(name, _OTHER_COLOUR)), term_in_words(name))


def _range(term: Term) -> str:
    if term.high_bytes - term.low_bytes <= max(1, term.bytes // 500):
        return ""
    return f"{format_bytes(term.low_bytes)} to {format_bytes(term.high_bytes)}"


def _capacity(estimate: Estimate) -> Text:
    capacity = estimate.capacity
    if capacity is None:
        return Text("")
    line = Text("Room for ")
    line.append(f"{capacity.kv_cache_tokens:,} tokens", style="bold")
    line.append(f" in all; one user's longest context is {capacity.max_context:,} tokens")
    asked = estimate.context
    if asked and capacity.max_concurrency < 1e6:
        line.append(f"; {capacity.max_concurrency:.2f} sequences of {asked:,} tokens fit at once")
    return line
