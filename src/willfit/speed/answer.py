"""How fast the run of an estimate would be: what every surface shows beside memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from willfit.engines.base import Machine, Subject
from willfit.estimate import Estimate
from willfit.quantities import ceil_div
from willfit.speed.certainty import Certainty, certainty_of
from willfit.speed.placing import Placed, placed
from willfit.speed.serving import Times, decode_step, prefill

#: What engines call the sequences that they run at once at most.
_LIMITS = (
    "max_num_seqs",
    "max_running_requests",
    "max_batch_size",
    "running_max_req_size",
    "max_num_sequence",
)

#: Engines that nobody starts.
_NO_PROGRAM = frozenset({"minimum"})

#: A host's memory bandwidth is a guess: dual-channel or twelve channels.
_HOST_SPREAD = 2.5
_HOST_NOTE = (
    "layers run on the processor, whose memory is taken to be that which such processors usually have"
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its 90 % interval, and what holds it up."""

    value: float
    low: float
    high: float
    binds: str

    def as_json(self) -> dict[str, Any]:
        """As the published JSON has it, four digits long."""
        return {
            "value": _short(self.value), "low": _short(self.low), "high": _short(self.high), "binds": self.binds,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a run is.

    Attributes
    ----------
    figures
        By name: of serving `first_token_s`, `tokens_per_s_per_user`, `tokens_per_s`; of training `step_time_s`,
        `tokens_per_s`, `tokens_per_day`.
    step
        Seconds of a step by what holds them up.
    facts
        What was asked: `context`, `users` and how many of them `running` at once, and the `prompt` if it is known; or
        `tokens` of a step.
    notes
        What the figures do not rest on.
    """

    figures: Mapping[str, Figure]
    step: Times
    facts: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As the published JSON has it."""
        return {
            **self.facts,
            **{name: figure.as_json() for name, figure in self.figures.items()},
            "step": {
                f"{name}_s": _short(float(getattr(self.step, name)))
                for name in ("bandwidth", "compute", "overhead", "communication")
            },
            "notes": list(self.notes),
        }


def speed_of(subject: Subject, machine: Machine, estimate: Estimate) -> Speed | None:
    """The speed of serving as an estimate has it, at the context and for the users that were asked for.

    Where the prompt is not known, it fills the context.

    Returns
    -------
    Speed | None
        None where nothing would run, nothing is generated, or figures of a device are not known.
    """
    architecture = subject.architecture
    silent = architecture.encoder_only or not architecture.causal or not architecture.logits_per_row
    if estimate.refusal or estimate.engine in _NO_PROGRAM or silent or subject.embeds or not estimate.context:
        return None
    if any(place.verdict == "does_not_fit" for place in estimate.devices):
        return None
    place = placed(subject, machine, estimate)
    if place is None:
        return None
    users = max(1, int(estimate.details.get("users") or estimate.details.get("sequences") or 1))
    running, memory_binds = _running(estimate, users, place.replicas)
    if not running:
        return None
    sure, notes = _certainty(machine, estimate, place, running)
    prompt = estimate.details.get("prompt", {}).get("tokens")
    first = prefill(place.plan, prompt or estimate.context)
    step = decode_step(place.plan, ceil_div(running, place.replicas), estimate.context)
    total = running / step.total
    figures = {
        "first_token_s": time_figure(first.total, sure, first.binds),
        "tokens_per_s_per_user": rate_figure(1 / step.total, sure, step.binds),
        "tokens_per_s": rate_figure(total, sure, "memory" if memory_binds else step.binds),
    }
    if subject.draft is not None:
        notes += ("tokens that a draft saves are not counted",)
    facts = {"context": estimate.context, "users": users, "running": running}
    return Speed(figures, step, facts if prompt is None else {**facts, "prompt": prompt}, notes)


def _running(estimate: Estimate, users: int, replicas: int) -> tuple[int, bool]:
    """How many of the users run at once, and whether memory keeps others waiting.

    An estimate's limits are those of one replica.
    """
    details = estimate.details
    limit = min((int(details[name]) for name in _LIMITS if isinstance(details.get(name), int)), default=users)
    running = min(users, limit * replicas) if limit > 0 else users
    if estimate.capacity is not None:
        room = int(estimate.capacity.max_concurrency * replicas)
        if room < running:
            return room, True
    return running, False


def _certainty(
    machine: Machine, estimate: Estimate, place: Placed, users: int
) -> tuple[Certainty, tuple[str, ...]]:
    used = machine.devices[: max(1, len(estimate.devices))]
    sure = certainty_of(estimate.engine, estimate.engine_version, used, users)
    notes = [sure.note] if sure.note else []
    if place.on_host:
        notes.append(_HOST_NOTE)
        sure = Certainty(sure.value, sure.low / _HOST_SPREAD, sure.high * _HOST_SPREAD, sure.cases)
    return sure, tuple(notes)


def rate_figure(value: float, sure: Certainty, binds: str) -> Figure:
    """A rate with its interval."""
    return Figure(value * sure.value, value * sure.low, value * sure.high, binds)


def time_figure(value: float, sure: Certainty, binds: str) -> Figure:
    """A time with its interval: certainty is about its inverse."""
    return Figure(value / sure.value, value / sure.high, value / sure.low, binds)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
