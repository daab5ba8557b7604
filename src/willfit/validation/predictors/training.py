"""Training runs: torch's counters, what the driver shows, and whether it went through."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.quantities import GIB
from willfit.training.estimate import estimate
from willfit.validation.cases import Case
from willfit.validation.scoring import Prediction, Unpredictable
from willfit.validation.training_cases import machine_of, settings_of, subject_of
from willfit.validation.training_readings import lengths, readings

#: Measured keys, and which figure of an estimate each is.
_FIGURES = {
    "peak_allocated_gib": "allocated",
    "peak_active_gib": "allocated",
    "peak_reserved_gib": "reserved",
    "nvidia_smi_gib": "shown",
}

#: Figures of an unknown unit, by what the source says that they count; the driver's where it says nothing.
_COUNTERS = {"peak_allocated": "allocated", "peak_reserved": "reserved"}


def predict(case: Case) -> dict[str, Any]:
    """Predict what a case measured, in every reading of what its source leaves open.

    The value is that of the framework's own defaults; the interval holds every reading, and the probability of
    fitting is their mean.

    Raises
    ------
    Unpredictable
        If the model is not bundled, or the method is not known.
    """
    found = _answers(case)
    result: dict[str, Any] = {}
    for key, name in _FIGURES.items():
        if key in case.measured:
            result[key] = _prediction(found, name)
    if "allocated_after_train_gib" in case.measured:
        sizes = [one.details["between_steps"] / GIB for one, _ in found]
        result["allocated_after_train_gib"] = Prediction(sizes[0], 0.98 * min(sizes), 1.02 * max(sizes))
    if case.fields.get("ambiguous"):
        name = _COUNTERS.get(case.fields["ambiguous"].get("what"), "shown")
        result["ambiguous_gib"] = _prediction(found, name)
    chances = [(one.probability, weight) for one, weight in found if one.probability is not None]
    if "fits" in case.measured and chances:
        total = sum(weight for _, weight in chances)
        result["fits"] = sum(chance * weight for chance, weight in chances) / total
    return result


def answer(case: Case) -> Estimate:
    """The estimate of a case's run, what is open being the framework's defaults."""
    return estimate(subject_of(case), machine_of(case), settings_of(case))


def _answers(case: Case) -> list[tuple[Estimate, float]]:
    """The estimates of all readings with their weights, first that of the defaults.

    Other readings than the defaults may be impossible, and do not count then.
    """
    subject, machine = subject_of(case), machine_of(case)
    first, *others = readings(case)
    found = [(estimate(subject, machine, one), weight) for one, weight in lengths(case, first)]
    for other in others:
        with suppress(BadInput):
            found += [(estimate(subject, machine, one), weight) for one, weight in lengths(case, other)]
    return found


def _prediction(found: Sequence[tuple[Estimate, float]], name: str) -> Prediction:
    figures = [one.details[name] for one, _ in found]
    low, high = min(figure[1] for figure in figures), max(figure[2] for figure in figures)
    return Prediction(figures[0][0] / GIB, low / GIB, high / GIB)


__all__ = ["Unpredictable", "answer", "predict"]
