"""Reading the values of flags, with errors that name the flag."""

from __future__ import annotations

from willfit.errors import BadInput

#: Longer numbers mean nothing.
_DIGITS = 15


def whole(program: str, flag: str, text: str, least: int = 1) -> int:
    """A whole number of at least `least`.

    Raises
    ------
    BadInput
        If the text is none.
    """
    if not (text.isascii() and text.isdigit()) or len(text) > _DIGITS or int(text) < least:
        raise BadInput(f"{program}: {flag} is {text[:40]!r}, expected a whole number of at least {least}")
    return int(text)


def share(program: str, flag: str, text: str) -> float:
    """A share above 0 and at most 1.

    Raises
    ------
    BadInput
        If the text is none.
    """
    try:
        value = float(text)
    except ValueError:
        raise BadInput(f"{program}: {flag} is {text[:40]!r}, expected a number") from None
    if not 0 < value <= 1:
        raise BadInput(f"{program}: {flag} is {text[:40]}, expected a share above 0 and at most 1")
    return value


def choice(program: str, flag: str, text: str, choices: tuple[str, ...]) -> str:
    """One of some words.

    Raises
    ------
    BadInput
        If it is none of them.
    """
    if text not in choices:
        raise BadInput(f"{program}: there is no {flag} {text[:40]}", f"known: {', '.join(choices)}")
    return text
