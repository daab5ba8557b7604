"""Where each rule of an engine was read: file, function and version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from willfit.engines.versions import Version, parse_version

#: From a version on, the place of a rule, `path: function`; empty where the rule is gone, or was not read any more.
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
        self._cited = cache(self._cite)

    def cite(self, rule: str, version: str) -> str:
        """How a term cites a rule: `vLLM 0.33.0 vllm/v1/worker/gpu_worker.py: determine_available_memory`.

        The version is the newest one read that is not above the one asked for and has the rule, else the oldest that
        has it.

        Raises
        ------
        KeyError
            If there is no such rule: a defect in the code that asks.
        """
        return self._cited(rule, version)

    def _cite(self, rule: str, version: str) -> str:
        numbers = parse_version(version)
        having = [known for known in self.read if self.path(rule, known)]
        reached = [known for known in having if parse_version(known) <= numbers]
        chosen = reached[-1] if reached else having[0]
        return f"{self.engine} {chosen} {self.path(rule, chosen)}"

    def path(self, rule: str, version: str) -> str:
        """The place of a rule in a version, its file and function; empty if the version has no such rule."""
        numbers = parse_version(version)
        return next((place for since, place in reversed(self.places[rule]) if since <= numbers), "")
