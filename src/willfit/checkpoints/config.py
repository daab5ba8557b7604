"""A model's config.json as a view that names what is missing or of the wrong type.

Families read their fields through `Config`, so that a broken file ends in one line that says which
field, in which file, is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from willfit.errors import BadInput


class _Required:
    """Marks a field without a default: its absence is an error."""


REQUIRED = _Required()

#: No count in a real config comes near this; a larger one is a broken or hostile file.
_MAX_INTEGER = 2**48


class Config:
    """Read-only view of a (nested) config with typed look-ups.

    A field is looked up under several names, first found wins, because the same quantity has several
    spellings (`num_hidden_layers`, `n_layer`, `n_layers`). `null` counts as absent.

    Parameters
    ----------
    fields
        The parsed JSON object.
    where
        How to name the file, and the section inside it, in an error.
    """

    __slots__ = ("fields", "where")

    def __init__(self, fields: Mapping[str, Any], where: str = "config.json") -> None:
        self.fields = fields
        self.where = where

    def __contains__(self, name: str) -> bool:
        return self.fields.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def with_defaults(self, **fields: Any) -> Config:
        """This config where fields that are absent or null have the given values."""
        present = {name: value for name, value in self.fields.items() if value is not None}
        return Config(fields | present, self.where)

    def raw(self, *names: str) -> Any:
        """The first of `names` that is present and not null, else None."""
        for name in names:
            value = self.fields.get(name)
            if value is not None:
                return value
        return None

    def integer(self, *names: str, default: int | _Required = REQUIRED) -> int:
        """A non-negative whole number.

        Raises
        ------
        BadInput
            If the field is missing and has no default, is no whole number, is negative or absurdly large.
        """
        value = self.raw(*names)
        if value is None:
            return self._absent(names, default)  # type: ignore[no-any-return]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_INTEGER:
            raise self._wrong(names, value, "a whole number that is not negative")
        return value

    def optional_integer(self, *names: str) -> int | None:
        """As `integer`, but None if the field is absent or null."""
        return None if self.raw(*names) is None else self.integer(*names)

    def number(self, *names: str, default: float | _Required = REQUIRED) -> float:
        """A finite number.

        Raises
        ------
        BadInput
            If the field is missing and has no default, or is not a finite number.
        """
        value = self.raw(*names)
        if value is None:
            return self._absent(names, default)  # type: ignore[no-any-return]
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or value != value
            or abs(value) > 1e300
        ):
            raise self._wrong(names, value, "a finite number")
        return float(value)

    def boolean(self, *names: str, default: bool | _Required = REQUIRED) -> bool:
        """A truth value.

        Raises
        ------
        BadInput
            If the field is missing and has no default, or is not true or false.
        """
        value = self.raw(*names)
        if value is None:
            return self._absent(names, default)  # type: ignore[no-any-return]
        if not isinstance(value, bool):
            raise self._wrong(names, value, "true or false")
        return value

    def text(self, *names: str, default: str | _Required = REQUIRED) -> str:
        """A string.

        Raises
        ------
        BadInput
            If the field is missing and has no default, or is not a string.
        """
        value = self.raw(*names)
        if value is None:
            return self._absent(names, default)  # type: ignore[no-any-return]
        if not isinstance(value, str):
            raise self._wrong(names, value, "a string")
        return value

    def items(self, *names: str) -> list[Any]:
        """A list, empty if the field is absent.

        Raises
        ------
        BadInput
            If the field is not a list.
        """
        value = self.raw(*names)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._wrong(names, value, "a list")
        return value

    def integers(self, *names: str) -> list[int]:
        """A list of non-negative whole numbers, empty if the field is absent.

        Raises
        ------
        BadInput
            If the field is not such a list.
        """
        values = self.items(*names)
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_INTEGER:
                raise self._wrong(names, value, "a list of whole numbers that are not negative")
        return values

    def strings(self, *names: str) -> list[str]:
        """A list of strings, empty if the field is absent.

        Raises
        ------
        BadInput
            If the field is not such a list.
        """
        values = self.items(*names)
        for value in values:
            if not isinstance(value, str):
                raise self._wrong(names, value, "a list of strings")
        return values

    def section(self, *names: str) -> Config | None:
        """A nested object as a Config of its own, None if absent.

        Raises
        ------
        BadInput
            If the field is not an object.
        """
        for name in names:
            value = self.fields.get(name)
            if value is not None:
                if not isinstance(value, Mapping):
                    raise self._wrong((name,), value, "an object")
                return Config(value, f"{self.where}: {name}")
        return None

    def _absent(self, names: tuple[str, ...], default: Any) -> Any:
        if isinstance(default, _Required):
            also = f" (or {', '.join(names[1:])})" if len(names) > 1 else ""
            raise BadInput(
                f"{self.where}: the field {names[0]!r}{also} is missing", "it is needed to size the model"
            )
        return default

    def _wrong(self, names: tuple[str, ...], value: Any, expected: str) -> BadInput:
        name = next(n for n in names if self.fields.get(n) is not None)
        return BadInput(f"{self.where}: {name!r} is {_short(value)}, expected {expected}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
