"""A way as its engine would be started: machine, settings, and the estimate with every term."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from willfit.engines.base import Machine, Question
from willfit.engines.table import ask, engine_module
from willfit.engines.vllm import NAME as VLLM
from willfit.estimate import Estimate
from willfit.planning.knobs import Knob
from willfit.planning.search.judging import laid_out
from willfit.planning.search.ways import Way
from willfit.planning.solving import Furthest, furthest
from willfit.quantities import ceil_div
from willfit.speed.answer import Speed, speed_of


@dataclass(frozen=True, slots=True)
class Settled:
    """One server of a way.

    Attributes
    ----------
    machine, question
        What it runs on, and what it is asked for.
    estimate, speed
        Its answer; None for the speed where that cannot be said.
    """

    machine: Machine
    question: Question
    estimate: Estimate
    speed: Speed | None


def server_of(way: Way, question: Question) -> tuple[Machine, Question]:
    """What one server of a way runs on, and its share of what is asked for."""
    machine = Machine((way.device,) * way.layout.server_devices)
    users = ceil_div(question.users, way.layout.replicas)
    return machine, replace(question, users=users, kv_dtype=way.kv_dtype)


def settings_of(way: Way, machine: Machine, share: Question) -> Any:
    """The settings of an engine for one server."""
    settings = engine_module(way.engine).settings_for(way.subject, machine, share)
    return laid_out(settings, way.layout, way.kv_dtype) if way.engine == VLLM else settings


def settled(way: Way, question: Question) -> Settled:
    """The estimate of a way, by the engine itself and not in columns."""
    machine, share = server_of(way, question)
    if way.engine == VLLM:
        settings = settings_of(way, machine, share)
        estimate: Estimate = engine_module(way.engine).estimate(way.subject, machine, settings, share.users)
    else:
        estimate = ask(way.engine, way.subject, machine, share)
    return Settled(machine, share, estimate, speed_of(way.subject, machine, estimate))


def longest_context(way: Way, question: Question, knob: Knob) -> Furthest:
    """How long the sequences of all users can be: exact, where columns say only about how long."""
    limit = way.subject.architecture.max_positions or 1 << 24
    return furthest(knob, limit, lambda step: settled(way, replace(question, context=step)).estimate)
