"""The one way to get a console: colours and width as the terminal has them, plain when piped."""

from __future__ import annotations

from rich.console import Console


def console() -> Console:
    """A console for standard output; `NO_COLOR` and pipes are honoured by rich itself."""
    return Console(highlight=False, soft_wrap=False)


def progress_console() -> Console:
    """A console for standard error, where long work shows how far it is."""
    return Console(stderr=True, highlight=False)
