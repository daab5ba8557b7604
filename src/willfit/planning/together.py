"""A model on devices of several kinds at once, and with what they do not hold in the host's RAM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from willfit.engines.base import Machine, Question, Subject
from willfit.engines.table import ask
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.planning.knobs import Knob
from willfit.planning.serving import EXPERTS, LAYERS, SETTINGS, Serving, solved
from willfit.speed.answer import Speed, speed_of


@dataclass(frozen=True, slots=True)
class Together:
    """A model on all devices of a machine.

    Attributes
    ----------
    subject
        In the finest format that fits, the fastest where layers are in RAM, else the coarsest.
    estimate, speed
        Its answer; None for the speed where that cannot be said.
    knob, value
        What puts layers into RAM, and how far it is turned; None where nothing is there.
    """

    subject: Subject
    estimate: Estimate
    speed: Speed | None
    knob: Knob | None = None
    value: int = 0


def on_all(subjects: Sequence[Subject], machine: Machine, question: Question, engine: str) -> Together | None:
    """A model on all devices, as an engine would spread it; None if it cannot be asked.

    Parameters
    ----------
    subjects
        In formats, the finest first.
    machine
        With the host's RAM if layers may lie there.
    """
    answer: Together | None = None
    for subject in subjects:
        try:
            estimate = ask(engine, subject, machine, question)
        except BadInput:
            continue
        answer = Together(subject, estimate, speed_of(subject, machine, estimate))
        if estimate.verdict == "fits":
            return answer
    if machine.host_bytes is None:
        return answer
    beside = _beside(subjects, machine, question, engine)
    return max(beside, key=_rate, default=answer)


def _beside(
    subjects: Iterable[Subject], machine: Machine, question: Question, engine: str
) -> Iterable[Together]:
    """Each format with as little in RAM as fits: experts where there are any, else layers."""
    for subject in subjects:
        blocks = subject.architecture.blocks
        sparse = any(layer.feed_forward is not None and layer.feed_forward.experts for layer, _ in blocks)
        knob = EXPERTS if sparse and engine in SETTINGS[EXPERTS.name] else LAYERS
        if engine not in SETTINGS[knob.name]:
            return
        try:
            found = solved(knob, Serving(subject, machine, question, engine))
        except BadInput:
            continue
        if found.value is not None:
            speed = speed_of(subject, machine, found.estimate)
            yield Together(subject, found.estimate, speed, knob, int(found.value))


def _rate(one: Together) -> float:
    return one.speed.figures["tokens_per_s_per_user"].value if one.speed is not None else 0.0
