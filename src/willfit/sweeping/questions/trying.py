"""Asking one point so that whatever goes wrong is its answer."""

from __future__ import annotations

from collections.abc import Callable

from willfit.errors import BadInput
from willfit.sweeping.rows import Row, error_row


def tried(ask: Callable[[], Row], engine: str | None) -> Row:
    """The row of a point.

    Parameters
    ----------
    engine
        The one that was asked for, which an error leaves as it is.
    """
    try:
        return ask()
    except BadInput as error:
        return error_row(str(error), engine)
    except Exception as error:
        # A mistake of ours at one point must not cost the others; the type tells it from what a user gave.
        return error_row(f"internal error: {type(error).__name__}: {error}", engine)
