"""A command that does not fit, and the edits that make it fit."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher, unified_diff
from typing import Any

from rich.console import Console
from rich.text import Text

from willfit.fixing.command import Fixed, Remade
from willfit.launch.editing.edit import Edited
from willfit.planning.binding import Place
from willfit.quantities import format_bytes
from willfit.surfaces.report.estimate import devices_in_words
from willfit.surfaces.report.lines import print_text


def as_json(found: Fixed) -> dict[str, Any]:
    """The answer as JSON."""
    return {
        "verdict": found.estimate.verdict,
        "command": list(found.words),
        "binding": None if found.binding is None else _place_as_json(found.binding),
        "fixes": [_remade_as_json(one, found.words) for one in found.remade],
        "nearest": list(found.nearest),
        "estimate": found.estimate.as_json(),
    }


def render(found: Fixed, console: Console) -> None:
    """Print the answer."""
    estimate = found.estimate
    console.print()
    title = Text.assemble(" ", (estimate.model, "bold"), f" on {devices_in_words(estimate)}, ")
    title.append(f"{estimate.engine} {estimate.engine_version}".rstrip() + ": ")
    title.append(*_verdict(found))
    print_text(console, title, 0)
    if found.binding is not None:
        print_text(console, Text(_in_the_way(found.binding, found), style="dim"), 1)
    console.print()
    if found.remade:
        _render_best(found, console)
    elif found.binding is not None:
        print_text(console, Text("No edit of the command makes it fit."), 1)
        for one in found.nearest:
            print_text(console, Text(f"What would: {one}"), 3, 2)
        console.print()


def _render_best(found: Fixed, console: Console) -> None:
    best, *others = found.remade
    new = best.edited.words
    if new != found.words:
        for sign, words, other, style in (("-", found.words, new, "red"), ("+", new, found.words, "green")):
            _print_line(console, Text.assemble((f" {sign} ", style), _marked(words, other, f"bold {style}")))
        console.print()
    if best.edited.file is not None and best.edited.text is not None:
        for line in _file_lines(best.edited):
            style = {"-": "red", "+": "green"}.get(line[0], "dim")
            _print_line(console, Text(f" {line}", style))
        console.print()
    for edit in best.way.edits:
        print_text(
            console, Text.assemble((_edit(edit.candidate.name, edit.value), "bold"), f": {edit.cost}"), 1, 2
        )
    console.print()
    print_text(console, Text("The whole command:", style="dim"), 1)
    console.print()
    _print_line(console, Text(shlex.join(new)))
    console.print()
    for index, one in enumerate(others):
        if not index:
            print_text(console, Text("Or:", style="dim"), 1)
        named = ", ".join(_edit(edit.candidate.name, edit.value) for edit in one.way.edits)
        costs = "; ".join(dict.fromkeys(edit.cost for edit in one.way.edits))
        print_text(console, Text.assemble((named, "bold"), f": {costs}"), 3, 2)
    if others:
        console.print()


def _print_line(console: Console, line: Text) -> None:
    """A line that is not wrapped, so that it can be copied."""
    console.print(line, no_wrap=True, crop=False, overflow="ignore", soft_wrap=True)


def _verdict(found: Fixed) -> tuple[str, str]:
    verdict = found.estimate.verdict
    if verdict == "fits":
        return "fits as it is", "bold green"
    return ("may not fit", "bold yellow") if verdict == "tight" else ("does not fit", "bold red")


def _edit(name: str, value: object) -> str:
    return name if value is None else f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def _in_the_way(place: Place, found: Fixed) -> str:
    """What is in the way; the weights alone, where these are too large for the devices."""
    if place.kind == "refusal":
        return place.name
    for device in found.estimate.devices:
        weights = sum(term.bytes for term in device.terms if term.name == "weights")
        if device.usable_bytes is not None and weights > device.usable_bytes:
            room = format_bytes(device.usable_bytes)
            return f"the weights alone take {format_bytes(weights)} of {device.name}, which has {room}"
    room, needed = format_bytes(max(0, place.room_bytes)), format_bytes(place.surely_bytes)
    if place.kind == "pool":
        # What the pool surely lacks is counted among what is needed.
        return f"{place.name}: {needed} are needed in a cache of {room}"
    where = place.name if place.kind == "device" else "the host"
    return f"up to {needed} are needed, and {where} has {room}"


def _marked(words: Sequence[str], other: Sequence[str], style: str) -> Text:
    """A command with the words coloured that another does not have."""
    line = Text()
    for index, (word, same) in enumerate(_compared(words, other)):
        line.append(" " if index else "")
        line.append(shlex.quote(word), "" if same else style)
    return line


def _compared(words: Sequence[str], other: Sequence[str]) -> Iterator[tuple[str, bool]]:
    for tag, start, end, _, _ in SequenceMatcher(None, words, other, autojunk=False).get_opcodes():
        yield from ((word, tag == "equal") for word in words[start:end])


def _file_lines(made: Edited) -> list[str]:
    """What changes in the text of a file, as a unified diff."""
    if made.file is None or made.text is None:
        return []
    before, after = made.file.text.splitlines(), made.text.splitlines()
    return list(unified_diff(before, after, made.file.name, made.file.name, n=1, lineterm=""))


def _remade_as_json(one: Remade, words: Sequence[str]) -> dict[str, Any]:
    return {
        "edits": [
            {"name": edit.candidate.name, "value": edit.value, "cost": edit.cost} for edit in one.way.edits
        ],
        "command": list(one.edited.words),
        "removed": [word for word, same in _compared(words, one.edited.words) if not same],
        "added": [word for word, same in _compared(one.edited.words, words) if not same],
        **(
            {"file": one.edited.file.name, "file_diff": "\n".join(_file_lines(one.edited))}
            if one.edited.file is not None and one.edited.text is not None
            else {}
        ),
        "verdict": one.estimate.verdict,
        "peak_bytes": max((device.peak_bytes for device in one.estimate.devices), default=0),
    }


def _place_as_json(place: Place) -> dict[str, Any]:
    if place.kind == "refusal":
        return {"kind": place.kind, "name": place.name}
    return {
        "kind": place.kind, "name": place.name, "needed_bytes": place.needed_bytes,
        "high_bytes": place.surely_bytes, "room_bytes": place.room_bytes,
    }  # fmt: skip
