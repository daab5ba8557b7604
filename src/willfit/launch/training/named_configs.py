"""Configs that come with a program and are called by name: files of `data/`, by version."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from willfit.engines.versions import parse_version

_DATA = Path(__file__).parents[1] / "data"


class Named(NamedTuple):
    """A named config.

    Attributes
    ----------
    values
        What it says, names joined with dots.
    version
        The version whose config it is.
    asked
        Whether the version that was asked for has it.
    """

    values: dict[str, Any]
    version: str
    asked: bool


class NamedConfigs:
    """The named configs of a program.

    Parameters
    ----------
    file
        A file of `data/`: a line with the versions, then one for each name with what each version says (of later ones
        only what changed, null for a key that went). `scripts/named_configs.py` writes it.
    newest
        The version that is meant where none is asked for.
    """

    def __init__(self, file: str, newest: str) -> None:
        self.file, self.newest = file, newest

    def find(self, name: str, version: str | None) -> Named | None:
        """A config by its name, as a version has it; None if no version does.

        Where the version lacks it, it is that of the nearest version that has it.
        """
        start = f'{{"name":{json.dumps(name)},'
        line = next((line for line in self._lines if line.startswith(start)), None)
        if line is None:
            return None
        found = json.loads(line)
        wanted = parse_version(version or self.newest)
        says: dict[str, dict[str, Any]] = found["says"]
        first, last = next(iter(says)), found["last"]
        values: dict[str, Any] = {}
        for since, changes in says.items():
            if since == first or parse_version(since) <= wanted:
                values.update(changes)
        kept = {key: value for key, value in values.items() if value is not None}
        if wanted < parse_version(first):
            return Named(kept, first, False)
        gone = self.versions[self.versions.index(last) + 1 :][:1]
        if gone and wanted >= parse_version(gone[0]):
            return Named(kept, last, False)
        return Named(kept, version or self.newest, True)

    def names(self) -> list[str]:
        """Names of all configs, of all versions."""
        return [json.loads(line)["name"] for line in self._lines]

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that were looked into, oldest first."""
        return tuple(json.loads(self._text[0])["versions"])

    @property
    def _lines(self) -> list[str]:
        return self._text[1:]

    @cached_property
    def _text(self) -> list[str]:
        return (_DATA / self.file).read_text(encoding="utf-8").splitlines()
