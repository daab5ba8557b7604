"""Look-ups in the metadata of a GGUF header, under the prefix of the architecture's own name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from willfit.errors import BadInput

_NEEDED = "it is needed to size the model"
_MAX_INTEGER = 2**48


class Metadata:
    """The metadata of one model.

    Parameters
    ----------
    values
        As `GgufHeader.metadata` has them.

    Raises
    ------
    BadInput
        If the header does not name an architecture.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        name = values.get("general.architecture")
        if not isinstance(name, str) or not name:
            raise BadInput("the GGUF header has no 'general.architecture'", _NEEDED)
        self.architecture = name

    def __contains__(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.values

    def integer(self, key: str, default: int | None = None, layer: int = 0) -> int:
        """A whole number that is not negative; of a list with one entry for each layer, that of `layer`.

        Raises
        ------
        BadInput
            If it is missing and there is no default, or is no such number.
        """
        field = f"{self.architecture}.{key}"
        value = self.values.get(field)
        if isinstance(value, tuple | list):
            value = value[layer] if layer < len(value) else None
        if value is None:
            if default is None:
                raise BadInput(f"the GGUF header has no {field!r}", _NEEDED)
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MAX_INTEGER:
            raise BadInput(f"the GGUF header: {field} is {str(value)[:40]}, expected a whole number")
        return value

    def flags(self, key: str) -> tuple[bool, ...] | None:
        """A list of truth values, one for each layer; None if it is absent or no list."""
        value = self.values.get(f"{self.architecture}.{key}")
        return tuple(bool(item) for item in value) if isinstance(value, tuple | list) else None

    def boolean(self, key: str, default: bool) -> bool:
        """A truth value."""
        return bool(self.values.get(f"{self.architecture}.{key}", default))
