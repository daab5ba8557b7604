"""What a writer hands over: a command, its variables and files, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from willfit.engines.base import Machine, Subject
from willfit.estimate import Estimate


@dataclass(frozen=True, slots=True)
class Order:
    """What shall be started.

    Attributes
    ----------
    model
        As the user named it.
    subject
        The model as stored.
    settings
        The engine's own; a training run's `TrainingSettings`.
    machine
        The devices.
    estimate
        What these settings take there.
    users
        Sequences at once.
    format_name
        The format that was asked for; None for the checkpoint's own.
    revision
        The revision that was asked for.
    chat_template
        The checkpoint's chat template (Jinja); None if it is not at hand.
    """

    model: str
    subject: Subject
    settings: Any
    machine: Machine
    estimate: Estimate
    users: int = 1
    format_name: str | None = None
    revision: str | None = None
    chat_template: str | None = None


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag with its values, or a variable, and why it is there in one line."""

    words: tuple[str, ...]
    reason: str

    def as_json(self) -> dict[str, Any]:
        """The flag as the published JSON has it."""
        return {"words": list(self.words), "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Written:
    """A command, as our launchers read it back.

    Attributes
    ----------
    engine, version
        What is started.
    start
        The program, what it shall do and the model.
    flags
        What follows.
    variables
        What is set for it: each flag is one word, `NAME=value`.
    files
        Files beside it, by the name that the command has for them.
    server
        A program that runs before and gets the variables instead; empty without.
    after
        Commands behind it.
    notes
        What a reader should know before it is run.
    """

    engine: str
    version: str
    start: tuple[str, ...]
    flags: tuple[Flag, ...] = ()
    variables: tuple[Flag, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    server: tuple[str, ...] = ()
    after: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The command without its variables, as a shell would split it."""
        return (*self.start, *(word for flag in self.flags for word in flag.words))

    @property
    def environment(self) -> dict[str, str]:
        """The variables by name."""
        pairs = (flag.words[0].partition("=") for flag in self.variables)
        return {name: value for name, _, value in pairs}

    def as_json(self) -> dict[str, Any]:
        """The command as the published JSON has it."""
        return {
            "engine": self.engine,
            "engine_version": self.version,
            "words": list(self.words),
            "env": self.environment,
            "files": dict(self.files),
            "server": list(self.server),
            "after": [list(words) for words in self.after],
            "reasons": [flag.as_json() for flag in (*self.variables, *self.flags)],
            "notes": list(self.notes),
        }
