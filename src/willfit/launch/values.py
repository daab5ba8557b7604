"""Reading the values of flags, with errors that name the flag."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from willfit.errors import BadInput
from willfit.launch.flags import Flag

#: Longer numbers mean nothing.
_DIGITS = 15

#: A shell's variable that nothing was put in for.
_UNSET = re.compile(r"\$[({]?\w")

#: What `std::stoi` and `std::stof` take from the beginning of a text.
_STOI = re.compile(r"\s*([+-]?\d{1,10})", re.ASCII)
_STOF = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+|inf|nan)", re.ASCII | re.IGNORECASE)

_HUMAN = re.compile(r"(\d{1,15})(?:\.(\d{1,15}))?([kKmMgGtT])", re.ASCII)
_SCALE: dict[str, int] = {unit: 1000**power for power, unit in enumerate("kmgt", 1)}
_SCALE |= {unit: 1024**power for power, unit in enumerate("KMGT", 1)}


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


def without_units(text: str) -> int | None:
    """A number with a unit as vLLM reads it: `32k` is 32,000 and `32K` is 32,768; None if it is none.

    `utils/argparse_utils.py: human_readable_int`; fractions go with decimal units only.
    """
    found = _HUMAN.fullmatch(text.strip())
    if found is not None:
        whole, fraction, unit = found.groups()
        if fraction is None:
            return int(whole) * _SCALE[unit]
        return int(float(f"{whole}.{fraction}") * _SCALE[unit]) if unit.islower() else None
    try:
        return int(text)
    except ValueError:
        return None


def stoi(text: str) -> int:
    """A number as C++'s `std::stoi` reads it, which stops at the first letter: `32k` is 32.

    Raises
    ------
    ValueError
        If the text does not begin with a number of 32 bits.
    """
    found = _STOI.match(text)
    if found is None or not -(2**31) <= int(found[1]) < 2**31:
        raise ValueError(f"{text[:40]!r} is no number")
    return int(found[1])


def check(program: str, flag: Flag, text: str) -> None:
    """Refuse a value that the program's parser would refuse.

    Raises
    ------
    BadInput
        That names the flag.
    """
    kind = flag.kind.removesuffix("?")
    if kind != "str" and _UNSET.search(text):
        # A script's own variable; the shell would have put its value here.
        if flag.quiet:
            return
        raise BadInput(f"{program}: {flag.name} is {text[:40]}, which is not set here", "write its value")
    try:
        match kind:
            case "str" | "tokens" | "" | "-":
                return
            case "int":
                int(text)
            case "float":
                float(text)
            case "json":
                json.loads(_expanded(text))
            case "stoi":
                stoi(text)
            case "stof":
                if _STOF.match(text) is None:
                    raise ValueError
            case _:
                if text not in kind.split("|"):
                    raise BadInput(
                        f"{program}: there is no {flag.name} {text[:40]}",
                        f"known: {', '.join(kind.split('|'))}",
                    )
    except RecursionError:
        raise BadInput(f"{program}: {flag.name} is nested too deep") from None
    except ValueError as error:
        if kind == "json":
            raise BadInput(f"{program}: {flag.name} is not JSON: {error}") from None
        what = "a whole number" if kind in ("int", "stoi") else "a number"
        raise BadInput(f"{program}: {flag.name} is {text[:40]!r}, expected {what}") from None


def _expanded(text: str) -> str:
    """JSON with numbers such as `80m` written out (`arg_utils.py: _expand_json_human_readable_numbers`)."""
    parts = re.split(r'("(?:[^"\\]|\\.)*")', text)
    parts[::2] = [
        re.sub(r"\b\d+(?:\.\d+)?[kKmMgGtT]\b", lambda found: str(without_units(found.group()) or "?"), part)
        for part in parts[::2]
    ]
    return "".join(parts)


def read_json(text: str) -> Any:
    """The value of a JSON option that has been checked."""
    return json.loads(_expanded(text))


def numbers_of(devices: Sequence[str]) -> tuple[int, ...]:
    """Numbers of devices that are named; empty where one has another name (a UUID)."""
    return tuple(int(one) for one in devices) if all(one.isdecimal() for one in devices) else ()
