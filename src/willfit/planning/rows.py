"""What people want to see beside the one number: the longest context of a few users, the users of a few contexts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from willfit.engines.base import Machine, Subject
from willfit.planning import serving, training
from willfit.planning.serving import CONTEXT, USERS, Serving
from willfit.planning.solving import Furthest
from willfit.training.settings import TrainingSettings

#: Users, and tokens of a sequence, that are looked at where nothing is said.
_USERS = (1, 4, 16)
_CONTEXTS = (4096, 16384, 65536)


@dataclass(frozen=True, slots=True)
class Row:
    """How far a knob goes under one condition.

    Attributes
    ----------
    condition, count
        What was held fixed, `users` or `context`, and at how many; empty and 0 if all was said.
    found
        How far it goes.
    """

    condition: str
    count: int
    found: Furthest


def serving_rows(name: str, run: Serving, users_said: bool) -> list[Row]:
    """How far a knob of a serving run goes.

    Parameters
    ----------
    name
        The knob's.
    run
        Where the question names no context, a few are looked at for the most users.
    users_said
        Whether the question's users were asked for; else a few are looked at for the longest context.

    Raises
    ------
    BadInput
        If the engine has no such knob, or nothing can be estimated.
    """
    knob = serving.KNOBS[name]
    return [Row(*held, serving.solved(knob, one)) for held, one in _held(name, run, users_said)]


def training_rows(name: str, subject: Subject, machine: Machine, settings: TrainingSettings) -> list[Row]:
    """How far a knob of a training run goes.

    Raises
    ------
    BadInput
        If the run has no such knob, or nothing can be estimated.
    """
    return [Row("", 0, training.solved(training.KNOBS[name], subject, machine, settings))]


def _held(name: str, run: Serving, users_said: bool) -> Iterator[tuple[tuple[str, int], Serving]]:
    """What is held fixed, and the run with it."""
    question = run.question
    if run.settings is not None:
        # A command says the rest itself.
        yield ("", 0), run
    elif name == CONTEXT.name:
        for users in (question.users,) if users_said else _USERS:
            yield ("users", users), replace(run, question=replace(question, users=users))
    elif name == USERS.name and question.context is None:
        limit = run.subject.architecture.max_positions
        lengths = [length for length in _CONTEXTS if not limit or length < limit]
        for length in [*lengths, *([limit] if limit else [])]:
            yield ("context", length), replace(run, question=replace(question, context=length))
    elif name == USERS.name:
        yield ("context", question.context_for(run.subject.architecture)), run
    else:
        yield ("", 0), run
