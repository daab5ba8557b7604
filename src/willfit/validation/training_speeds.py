"""Published speeds of training: what a step did, and how long it took."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.base import Machine
from willfit.speed.training import Step, step_of, step_times
from willfit.speed.training_rates import training_rates_of
from willfit.training.estimate import prepared
from willfit.validation.cases import Case
from willfit.validation.scoring import Unpredictable
from willfit.validation.training_cases import machine_of, settings_of, subject_of

#: Measured keys that are speeds of training.
KEYS = frozenset({"tokens_per_s_per_gpu", "tokens_per_s", "samples_per_s", "step_time_s", "s_per_iter"})

#: Those of them that are times, which shrink as speed grows.
TIMES = frozenset({"step_time_s", "s_per_iter"})

#: Frameworks whose `iter` is a micro-batch of one rank, not a step.
_MICRO_ITERATIONS = frozenset({"litgpt"})


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What a case trained.

    Attributes
    ----------
    step
        What a rank did.
    machine
        Where.
    micro_iterations
        An iteration, as the source counts, is a micro-batch.
    """

    step: Step
    machine: Machine
    micro_iterations: bool

    def speeds(self) -> dict[str, float]:
        """What would be measured by key, with the constants in force.

        Raises
        ------
        Unpredictable
            If the device's figures are not known.
        """
        rates = training_rates_of(self.machine.devices[0])
        if rates is None:
            raise Unpredictable(f"the rates of {self.machine.devices[0].name} are not known")
        step, seconds = self.step, step_times(self.step, rates).total
        return {
            "step_time_s": seconds,
            "s_per_iter": seconds / step.micro_batches if self.micro_iterations else seconds,
            "samples_per_s": step.sequences / seconds,
            "tokens_per_s": step.tokens / seconds,
            "tokens_per_s_per_gpu": step.tokens / seconds / len(self.machine.devices),
        }


def training_run_of(case: Case) -> TrainingRun:
    """What a case trained.

    Raises
    ------
    Unpredictable
        If the length of its sequences is not known: a mean is not the longest.
    """
    if case.settings.get("seq_len_kind") != "exact":
        raise Unpredictable("sequences differ in length, and only the longest is said")
    subject, machine = subject_of(case), machine_of(case)
    run, ranks = prepared(subject, machine, settings_of(case))
    return TrainingRun(step_of(subject, run, ranks), machine, case.engine in _MICRO_ITERATIONS)


def training_key(case: Case) -> str | None:
    """Which of the speeds a case measured; None without."""
    return next((key for key in sorted(KEYS) if key in case.measured), None) if case.kind == "train" else None
