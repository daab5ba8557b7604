"""Names and values of a config or of a command line, with what of them was looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from willfit.errors import BadInput

_WORDS = {
    "true": True,
    "false": False,
    "yes": True,
    "no": False,
    "on": True,
    "off": False,
    "1": True,
    "0": False,
}

#: Longer numbers mean nothing.
_LARGEST = 10**15


class Keys:
    """Values by name, nested names joined with dots.

    Every reading function gives None where the name is missing or its value is null, and raises `BadInput`, naming
    program and key, where the value is of another kind.

    Parameters
    ----------
    program
        How to call the program in an error.
    values
        As a YAML, TOML or JSON file has them, or the texts of a command line.
    """

    def __init__(self, program: str, values: Mapping[str, Any]) -> None:
        self.program = program
        self.values = dict(_flat(values))
        self.seen: set[str] = set()

    def get(self, name: str) -> Any:
        """The value as it stands; None if it is missing."""
        self.seen.add(name)
        return self.values.get(name)

    def has(self, name: str) -> bool:
        """Whether a name, or one inside it, has a value."""
        return any(key == name or key.startswith(name + ".") for key in self.values)

    def whole(self, name: str, least: int = 1) -> int | None:
        """A whole number of at least `least`; digits in quotes are one, too."""
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, str):
            text = value.strip().replace("_", "")
            value = int(text) if text.lstrip("-").isascii() and text.lstrip("-").isdigit() else value
        if isinstance(value, float) and value == int(value if abs(value) < _LARGEST else 0):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < _LARGEST:
            raise self.wrong(name, f"a whole number of at least {least}")
        return value

    def number(self, name: str) -> float | None:
        """A number."""
        value = self.get(name)
        if value is None:
            return None
        try:
            found = float(value) if not isinstance(value, bool) else None
        except (TypeError, ValueError):
            found = None
        if found is None or not abs(found) < _LARGEST:
            raise self.wrong(name, "a number")
        return found

    def flag(self, name: str) -> bool | None:
        """True or false; the usual words for them are read as YAML does."""
        value = self.get(name)
        if value is None or isinstance(value, bool):
            return value
        if str(value).lower() not in _WORDS:
            raise self.wrong(name, "true or false")
        return _WORDS[str(value).lower()]

    def word(self, name: str, choices: Iterable[str] = ()) -> str | None:
        """A text, which is one of `choices` if there are any."""
        value = self.get(name)
        if value is None:
            return None
        known = tuple(choices)
        if not isinstance(value, str | int | float) or (isinstance(value, bool) and not known):
            raise self.wrong(name, "a word")
        if known and str(value) not in known:
            raise BadInput(
                f"{self.program}: there is no {name} {str(value)[:40]}", f"known: {', '.join(known)}"
            )
        return str(value)

    def words(self, name: str) -> tuple[str, ...]:
        """Several texts: a list, or one text with commas; empty where it is missing."""
        value = self.get(name)
        if value is None:
            return ()
        if isinstance(value, str):
            value = value.strip().removeprefix("[").removesuffix("]").split(",")
            value = [one.strip().strip("'\"") for one in value]
        if not isinstance(value, list | tuple) or not all(isinstance(one, str | int) for one in value):
            raise self.wrong(name, "a list of words")
        return tuple(str(one) for one in value if str(one))

    def under(self, name: str) -> dict[str, Any]:
        """What stands inside a name, by the rest of the names."""
        inside = {key.removeprefix(name + "."): key for key in self.values if key.startswith(name + ".")}
        self.seen |= set(inside.values())
        return {short: self.values[key] for short, key in inside.items()}

    def see(self, *names: str) -> None:
        """Take names, and all inside them, for read."""
        for key in self.values:
            if any(key == name or key.startswith(name + ".") for name in names):
                self.seen.add(key)

    def unread(self) -> list[str]:
        """Names with a value that nothing looked at."""
        return [name for name, value in self.values.items() if name not in self.seen and value is not None]

    def wrong(self, name: str, expected: str) -> BadInput:
        """What to raise for a value of the wrong kind."""
        return BadInput(f"{self.program}: {name} is {str(self.values.get(name))[:40]!r}, expected {expected}")


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Names with dots as mappings inside each other."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        *outer, last = name.split(".")
        inside = found
        for part in outer:
            inside = inside.setdefault(part, {})
        inside[last] = value
    return found


def path_of(text: str) -> Path:
    """A path as a shell would read it; `~` stays where it means nobody's home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def _flat(values: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
