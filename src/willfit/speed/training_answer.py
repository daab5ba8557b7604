"""How fast a training run would be: beside `answer.py`, so that serving does not load what training needs."""

from __future__ import annotations

from willfit.engines.base import Machine, Subject
from willfit.speed.answer import Speed, rate_figure, time_figure
from willfit.speed.certainty import certainty_of_training
from willfit.speed.rates import with_rates
from willfit.speed.training import step_of, step_times
from willfit.speed.training_rates import training_rates_of
from willfit.training.estimate import prepared
from willfit.training.settings import TrainingSettings

_DAY = 24 * 60 * 60


def training_speed_of(subject: Subject, machine: Machine, settings: TrainingSettings) -> Speed | None:
    """The speed of a training run; None if figures of its devices are not known."""
    rates = training_rates_of(machine.devices[0]) if machine.devices else None
    if rates is None:
        return None
    run, ranks = prepared(subject, machine, settings)
    step = step_of(subject, run, ranks)
    if not step.tokens or run.settings.layout.device_map:
        return None
    times, sure = step_times(step, rates), certainty_of_training()
    per_s = step.tokens / times.total
    notes = [sure.note] if sure.note else []
    if run.settings.rollout is not None or run.settings.objective not in ("sft", "pretrain"):
        notes.append(
            "generating answers and running other models than the one that is trained are not counted"
        )
    if with_rates(machine.devices[0]) is not machine.devices[0]:
        notes.append(f"the rates of {machine.devices[0].name} are not published: those of its kind are taken")
    return Speed(
        {
            "step_time_s": time_figure(times.total, sure, times.binds),
            "tokens_per_s": rate_figure(per_s, sure, times.binds),
            "tokens_per_day": rate_figure(per_s * _DAY, sure, times.binds),
        },
        times,
        {"tokens": int(step.tokens)},
        tuple(notes),
    )
