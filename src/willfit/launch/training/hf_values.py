"""Values that scripts of the Hugging Face world call by several names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from willfit.errors import BadInput
from willfit.launch.training.keys import Keys
from willfit.quantities import dtype_name


def first(keys: Keys, names: Sequence[str]) -> Any:
    """The value of the first name that has one; all names are looked at."""
    values = [keys.get(name) for name in names]
    return next((value for value in values if value is not None), None)


def first_whole(keys: Keys, names: Sequence[str], least: int = 1) -> int | None:
    """The whole number of the first name that has one."""
    values = [keys.whole(name, least) for name in names]
    return next((value for value in values if value is not None), None)


def first_number(keys: Keys, names: Sequence[str]) -> float | None:
    """The number of the first name that has one."""
    values = [keys.number(name) for name in names]
    return next((value for value in values if value is not None), None)


def any_flag(keys: Keys, names: Sequence[str]) -> bool | None:
    """Whether one of the names is on; None if nothing is said of any."""
    values = [keys.flag(name) for name in names]
    return True if True in values else False if False in values else None


def names_of(keys: Keys, name: str) -> tuple[str, ...]:
    """Words of a list that stands in a file, as one word with commas, as `[a,b]`, or as words behind a flag."""
    value = keys.get(name)
    if value is None:
        return ()
    parts = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(part, str | int) for part in parts):
        raise keys.wrong(name, "a list of words")
    words = [word.strip(" \"'[]()") for part in parts for word in str(part).split(",")]
    return tuple(word for word in words if word)


def dtype(keys: Keys, name: str) -> str | None:
    """A dtype by its name here; `auto` is left as it is, and None where nothing is said."""
    value = keys.word(name)
    if value is None or value.lower() in ("none", "null"):
        return None
    if value == "auto":
        return value
    try:
        return dtype_name(value)
    except BadInput as error:
        hint = "known: auto, bfloat16, float16, float32"
        raise BadInput(f"{keys.program}: {name} is {value[:40]!r}", hint) from error
