"""Models of a chunk, each found once: as stored in each format, or why not."""

from __future__ import annotations

from functools import lru_cache

from willfit.asking import find_subject
from willfit.engines.base import Subject
from willfit.errors import BadInput

#: A chunk has one model; so many formats of it are at hand.
_KEPT = 16


def model_of(
    name: str, format_name: str | None, revision: str | None, offline: bool, engine: str | None
) -> tuple[Subject, bool]:
    """`asking.find_subject`, looked up once.

    Raises
    ------
    BadInput
        If the model cannot be found or read.
    """
    found = _looked_up(name, format_name, revision, offline, engine)
    if isinstance(found, BadInput):
        raise BadInput(found.message, found.hint)
    return found


@lru_cache(_KEPT)
def _looked_up(
    name: str, format_name: str | None, revision: str | None, offline: bool, engine: str | None
) -> tuple[Subject, bool] | BadInput:
    try:
        return find_subject(name, format_name, revision, offline, engine)
    except BadInput as error:
        return error
