"""Wrapped text with an indent, without spaces at the ends of lines."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def print_text(console: Console, text: Text, indent: int, hanging: int = 0, right: int = 2) -> None:
    """Print text wrapped to the console.

    Parameters
    ----------
    indent, right
        Columns that are left free on either side.
    hanging
        By how much the lines after the first are indented further.
    """
    width = max(20, console.width - indent - right)
    first, *rest = _wrapped(console, text, width, hanging)
    for line, further in ((first, 0), *((line, hanging) for line in rest)):
        console.print(
            Text.assemble(" " * (indent + further), line), no_wrap=True, crop=False, overflow="ignore"
        )


def _wrapped(console: Console, text: Text, width: int, hanging: int) -> list[Text]:
    """Lines of a text, those after the first narrower by the hanging indent."""
    lines = list(text.wrap(console, width))
    if len(lines) > 1 and hanging:
        first = lines[0]
        first.rstrip()
        rest = text[len(first.plain) :]
        while rest.plain.startswith(" "):
            rest = rest[1:]
        lines = [first, *rest.wrap(console, width - hanging)]
    for line in lines:
        line.rstrip()
    return lines or [Text("")]
