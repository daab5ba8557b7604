"""Training runs: torch's counters, what the driver shows, and whether it went through."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from willfit.estimate import Estimate
from willfit.quantities import GIB
from willfit.training.estimate import estimate
from willfit.validation.cases import Case
from willfit.validation.scoring import Prediction, Unpredictable
from willfit.validation.training_cases import machine_of, settings_of, subject_of

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
    """Predict what a case measured.

    Raises
    ------
    Unpredictable
        If the model is not bundled, or the method is not known.
    """
    found = answer(case)
    low = _shortest(case, found)
    result: dict[str, Any] = {}
    for key, name in _FIGURES.items():
        if key in case.measured:
            result[key] = _prediction(found, low, name)
    if "allocated_after_train_gib" in case.measured:
        size = found.details["between_steps"] / GIB
        result["allocated_after_train_gib"] = Prediction(size, 0.98 * size, 1.02 * size)
    if case.fields.get("ambiguous"):
        result["ambiguous_gib"] = _prediction(
            found, low, _COUNTERS.get(case.fields["ambiguous"].get("what"), "shown")
        )
    if "fits" in case.measured and found.probability is not None:
        result["fits"] = found.probability
    return result


def answer(case: Case) -> Estimate:
    """The estimate of a case's run."""
    return _answer(case.id, _Held(case))


class _Held:
    """A case that does not count in a cache's key, for its id does."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held)

    def __hash__(self) -> int:
        return 0


@cache
def _answer(_: str, held: _Held) -> Estimate:
    case = held.case
    return estimate(subject_of(case), machine_of(case), settings_of(case))


def _shortest(case: Case, found: Estimate) -> Estimate:
    """The estimate for half the tokens, where a source gives no more than an upper bound of them."""
    length = case.settings.get("seq_len")
    if case.settings.get("seq_len_kind") != "upper_bound" or not length:
        return found
    return estimate(subject_of(case), machine_of(case), replace(settings_of(case), seq_len=int(length) // 2))


def _prediction(found: Estimate, shortest: Estimate, name: str) -> Prediction:
    value, _, high = found.details[name]
    return Prediction(value / GIB, shortest.details[name][1] / GIB, high / GIB)


__all__ = ["Unpredictable", "answer", "predict"]
