"""From a launch command that does not fit to the edits that make it fit: each is read again, and asked about again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from willfit.asking import (
    CommandRun,
    Loaded,
    estimate_of_run,
    run_of_command,
    run_of_launch,
    with_assumptions,
)
from willfit.engines.base import Machine, Subject
from willfit.engines.table import engine_module
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.fixing.candidates import Candidate
from willfit.fixing.engines.table import candidates_of
from willfit.fixing.given import Given
from willfit.fixing.nearest import nearest
from willfit.fixing.search import Way, ways
from willfit.launch.editing.changes import Change, SetFlag
from willfit.launch.editing.edit import Edited, edited
from willfit.launch.editing.files import standing_in
from willfit.launch.editing.grammars import grammar_of
from willfit.launch.editing.place import place_of
from willfit.launch.flags import lacks
from willfit.launch.table import parse_command
from willfit.planning.binding import Place, fullest


@dataclass(frozen=True, slots=True)
class Remade:
    """A command that was made to fit.

    Attributes
    ----------
    way
        The edits.
    edited
        The whole command with them.
    """

    way: Way
    edited: Edited

    @property
    def estimate(self) -> Estimate:
        """What it takes."""
        return self.way.estimate


@dataclass(frozen=True, slots=True)
class Fixed:
    """What can be done about a command.

    Attributes
    ----------
    words
        As it was given.
    estimate
        What it takes so.
    remade
        Ways to make it fit, the one that loses least first; empty if it fits, or nothing helps.
    binding
        What is in the way; None if it fits.
    nearest
        What would work instead, in words; empty where something helps, or nothing is known.
    """

    words: tuple[str, ...]
    estimate: Estimate
    remade: tuple[Remade, ...] = ()
    binding: Place | None = None
    nearest: tuple[str, ...] = ()


def fix_command(
    words: Sequence[str],
    machine: Machine,
    users: int = 1,
    version: str | None = None,
    offline: bool = False,
) -> Fixed:
    """The fewest edits with the least loss that make a launch command surely fit.

    Parameters
    ----------
    words
        The command, split as a shell would.
    machine
        The devices.
    users
        Sequences that shall run at once.
    version
        Version of the engine; None for the one that the command pins, else the newest that is known.
    offline
        Never use the network.

    Raises
    ------
    BadInput
        If the command is not understood, anything that it names cannot be used, no edits are known for its program,
        or the memory of the devices is not known.
    """
    run = run_of_command(words, machine, version, offline)
    now = with_assumptions(estimate_of_run(run, users), run.machine)
    if now.verdict == "fits":
        return Fixed(tuple(words), now)
    if now.verdict == "unknown":
        raise BadInput(
            "the memory of the devices is not known", "name them with --gpu, or their size: --gpu 24GiB"
        )
    known = {Loaded.of(run.launch): run.subject}
    asked = _Asked(tuple(words), run, machine, users, version, offline, known)
    given = Given(run, now, users)
    found = ways(_candidates(given, words), asked.weigh, now)
    if found:
        return Fixed(tuple(words), now, tuple(asked.remade(way) for way in found), fullest(now))
    return Fixed(tuple(words), now, (), fullest(now), nearest(given))


def _candidates(given: Given, words: Sequence[str]) -> list[Candidate]:
    """What may be edited, with flags that the version has."""
    place = place_of(words)
    found = candidates_of(given, place.launcher, place.words[place.start :])
    grammar, version = grammar_of(place.launcher), given.settings.version
    if grammar is None or version is None:
        return found

    def has(change: Change) -> bool:
        flag = grammar.table.flags.get(change.flag) if isinstance(change, SetFlag) else None
        return flag is None or not lacks(flag, grammar.table.versions, version)

    return [one for one in found if all(map(has, one.changes(one.values[-1])))]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A command with all that is asked with it."""

    words: tuple[str, ...]
    run: CommandRun
    machine: Machine
    users: int
    version: str | None
    offline: bool
    known: dict[Loaded, Subject]

    def weigh(self, changes: tuple[Change, ...]) -> Estimate:
        """What the command takes with changes made, without advice.

        Raises
        ------
        BadInput
            If it cannot be changed so.
        """
        run = self._again(edited(self.words, changes))
        settings = run.launch.settings
        if run.launch.engine == "training":
            from willfit.training.estimate import estimate_alone

            if settings.version != self.run.launch.settings.version:
                raise BadInput("another version would be needed")
            return estimate_alone(run.subject, run.machine, settings)
        module = engine_module(run.launch.engine)
        weigh = getattr(module, "estimate_alone", module.estimate)
        estimate: Estimate = weigh(run.subject, run.machine, settings, self.users)
        return estimate

    def remade(self, way: Way) -> Remade:
        """The command with edits made."""
        return Remade(way, edited(self.words, [change for edit in way.edits for change in edit.changes]))

    def _again(self, made: Edited) -> CommandRun:
        with standing_in(made.words, made.file, made.text) as words:
            launch = parse_command(words, self.version)
        return run_of_launch(launch, self.machine, self.offline, self.known)
