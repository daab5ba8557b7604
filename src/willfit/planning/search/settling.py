"""A way as its engine would be started: machine, settings, and the estimate with every term."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from willfit.engines.base import Machine, Question
from willfit.engines.table import engine_module
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
    machine, settings
        What it runs on, and the engine's settings.
    users
        How many it serves.
    estimate, speed
        Its answer; None for the speed where that cannot be said.
    """

    machine: Machine
    settings: Any
    users: int
    estimate: Estimate
    speed: Speed | None


def settled(way: Way, question: Question) -> Settled:
    """The estimate of a way, by the engine itself and not in columns."""
    machine = Machine((way.device,) * way.layout.server_devices)
    share = replace(question, users=ceil_div(question.users, way.layout.replicas), kv_dtype=way.kv_dtype)
    module = engine_module(way.engine)
    settings = module.settings_for(way.subject, machine, share)
    if way.engine == VLLM:
        settings = laid_out(settings, way.layout, way.kv_dtype)
    estimate: Estimate = module.estimate(way.subject, machine, settings, share.users)
    return Settled(machine, settings, share.users, estimate, speed_of(way.subject, machine, estimate))


def longest_context(way: Way, question: Question, knob: Knob) -> Furthest:
    """How long the sequences of all users can be: exact, where columns say only about how long."""
    limit = way.subject.architecture.max_positions or 1 << 24
    return furthest(knob, limit, lambda step: settled(way, replace(question, context=step)).estimate)
