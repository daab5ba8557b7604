"""What candidates are made from: a command's run as it is, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from willfit.asking import CommandRun
from willfit.engines.base import Subject
from willfit.estimate import Estimate


@dataclass(frozen=True, slots=True)
class Given:
    """A command that does not fit.

    Attributes
    ----------
    run
        What it starts.
    estimate
        What that takes.
    users
        Sequences that shall run at once.
    """

    run: CommandRun
    estimate: Estimate
    users: int

    @property
    def settings(self) -> Any:
        """The engine's own."""
        return self.run.launch.settings

    @property
    def subject(self) -> Subject:
        """The model."""
        return self.run.subject

    @property
    def details(self) -> dict[str, Any]:
        """What the engine made of what was left open."""
        return self.estimate.details

    @property
    def devices(self) -> int:
        """How many the command sees."""
        return len(self.run.machine.devices)

    @property
    def stored_plain(self) -> bool:
        """Whether the weights are in 16 bits or more, so that an engine may round them while it loads."""
        return self.subject.recipe.rule is None and self.run.launch.format_name is None

    @property
    def context(self) -> int | None:
        """Tokens of the longest sequence now; None if nothing says."""
        return self.estimate.context or self.subject.architecture.max_positions or None
