"""Published measurements: reading a file of cases.

A case is one JSON object per line; `docs/cases.md` lists its keys. Only what decides whether a line is a
case at all is checked here, so that a file with keys of a later version can still be read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from willfit.errors import BadInput


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement that someone published.

    Attributes
    ----------
    id
        Stable identifier.
    fields
        The whole object, as read.
    """

    id: str
    fields: dict[str, Any]

    @property
    def kind(self) -> str:
        """`serve`, `generate`, `train` or `operator`."""
        return str(self.fields.get("kind", "serve"))

    @property
    def engine(self) -> str:
        """Name of the program that was measured."""
        return str(self.fields.get("engine", ""))

    @property
    def settings(self) -> dict[str, Any]:
        """The engine's own settings."""
        return dict(self.fields.get("settings") or {})

    @property
    def measured(self) -> dict[str, Any]:
        """What was measured, by key."""
        return dict(self.fields.get("measured") or {})

    @property
    def unknown_settings(self) -> frozenset[str]:
        """Settings that matter and were not published."""
        return frozenset(self.fields.get("unknown_settings") or ())

    @property
    def scored(self) -> bool:
        """Rows of low confidence are predicted but not scored."""
        return self.fields.get("confidence") != "low"

    @property
    def prefix(self) -> str:
        """First part of its metric names."""
        return "train" if self.kind == "train" else self.engine


def read_cases(path: Path) -> list[Case]:
    """Read a file of cases.

    Raises
    ------
    BadInput
        If the file cannot be read, or a line is no case; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {error}") from error
    cases = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"{path}, line {number}: not JSON: {error}") from error
        if not isinstance(fields, dict) or not isinstance(fields.get("id"), str):
            raise BadInput(f"{path}, line {number}: not a case", "a case is a JSON object with an 'id'")
        for key in ("settings", "measured"):
            if not isinstance(fields.get(key) or {}, dict):
                raise BadInput(f"{path}, line {number}: {key!r} is not an object")
        cases.append(Case(fields["id"], fields))
    return cases
