"""Where each rule of an engine was read: file, function and version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from willfit.engines.versions import Version, parse_version

#: From a version on, the place of a rule: `path: function`.
Places = Sequence[tuple[Version, str]]


class Sources:
    """The places of an engine's rules.

    Parameters
    ----------
    engine
        The engine's name as its authors write it.
    read
        Released versions whose source was read, oldest first.
    places
        By rule, oldest first.
    """

    def __init__(self, engine: str, read: Sequence[str], places: Mapping[str, Places]) -> None:
        self.engine = engine
        self.read = tuple(read)
        self.places = dict(places)
        self._numbers = tuple(parse_version(version) for version in read)
        self._cited = cache(self._cite)

    def cite(self, rule: str, version: str) -> str:
        """How a term cites a rule: `vLLM 0.33.0 vllm/v1/worker/gpu_worker.py: determine_available_memory`.

        The version is the newest one read that is not above the one asked for, or the oldest read.

        Raises
        ------
        KeyError
            If there is no such rule: a defect in the code that asks.
        """
        return self._cited(rule, version)

    def _cite(self, rule: str, version: str) -> str:
        numbers = parse_version(version)
        reached = [index for index, known in enumerate(self._numbers) if known <= numbers]
        index = reached[-1] if reached else 0
        return f"{self.engine} {self.read[index]} {self.path(rule, self.read[index])}"

    def path(self, rule: str, version: str) -> str:
        """The place of a rule in a version: its file and function."""
        numbers, places = parse_version(version), self.places[rule]
        return next((place for since, place in reversed(places) if since <= numbers), places[0][1])
