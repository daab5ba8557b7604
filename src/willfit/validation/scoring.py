"""Predictions against measurements: errors, interval coverage, under-estimates, wrong verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from willfit.errors import BadInput
from willfit.validation.cases import Case


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predicted quantity with its 90 % interval, in the unit of the measured key."""

    value: float
    low: float
    high: float


#: Predicts the measured keys of a case from its settings alone. `fits` is predicted as a probability.
#: A value is a Prediction, or a dict of them where the measurement is a table per device.
Predictor = Callable[[Case], dict[str, Any]]


def hull(one: Any, other: Any) -> Any:
    """What is predicted, with an interval that holds another prediction of the same key as well."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return one[0], hull(one[1], other[1])
    if not isinstance(one, Prediction) or not isinstance(other, Prediction):
        return one
    return Prediction(one.value, min(one.low, other.low), max(one.high, other.high))


class Unpredictable(Exception):
    """A case that cannot be predicted, with the reason as its message."""


@dataclass(frozen=True, slots=True)
class Row:
    """One observation: what was measured and what was predicted."""

    id: str
    metric: str
    measured: float
    predicted: float
    low: float
    high: float
    scored: bool

    @property
    def error(self) -> float:
        """Signed error in percent of the measurement."""
        return 100 * (self.predicted - self.measured) / self.measured

    @property
    def covered(self) -> bool:
        """Whether the measurement lies in the predicted interval (a printed figure has about 3 digits)."""
        slack = 0.0005 * abs(self.measured)
        return self.low - slack <= self.measured <= self.high + slack

    @property
    def under(self) -> bool:
        """Whether even the high end lies below the measurement."""
        return self.high < self.measured - 0.0005 * abs(self.measured)

    def as_json(self) -> dict[str, Any]:
        """The row as `validate --json` prints it."""
        return {
            "id": self.id,
            "metric": self.metric.split(".", 1)[1] if self.metric.count(".") else self.metric,
            "measured": self.measured,
            "predicted": round(self.predicted, 6),
            "low": round(self.low, 6),
            "high": round(self.high, 6),
        }


@dataclass(slots=True)
class Score:
    """The outcome of validating a file of cases."""

    n_cases: int = 0
    n_predicted: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    verdicts: list[tuple[str, bool, float]] = field(default_factory=list)

    def metrics(self) -> dict[str, dict[str, float]]:
        """Errors by metric name, over scored rows, and the shares of wrong verdicts."""
        grouped: dict[str, list[Row]] = {}
        for row in self.rows:
            if row.scored:
                grouped.setdefault(row.metric, []).append(row)
        table = {name: _summary(rows) for name, rows in sorted(grouped.items())}
        if self.verdicts:
            for name, happened in (("verdict.false_fit", False), ("verdict.false_refusal", True)):
                chances = [chance for _, fits, chance in self.verdicts if fits is happened]
                if chances:
                    wrong = sum((chance >= 0.5) is not happened for chance in chances)
                    table[name] = {"n": len(chances), "share": wrong / len(chances)}
        return table

    def as_json(self) -> dict[str, Any]:
        """What `validate --json` prints."""
        return {
            "n_cases": self.n_cases,
            "n_predicted": self.n_predicted,
            "skipped": [{"id": id_, "reason": reason} for id_, reason in self.skipped],
            "metrics": {
                name: {key: _rounded(value) for key, value in figures.items()}
                for name, figures in self.metrics().items()
            },
            "rows": [row.as_json() for row in self.rows],
        }


def score_cases(cases: Iterable[Case], predictor_for: Callable[[Case], Predictor]) -> Score:
    """Predict and score cases.

    Parameters
    ----------
    cases
        What was published.
    predictor_for
        Finds the predictor of a case; raises `Unpredictable` where there is none.
    """
    score = Score()
    for case in cases:
        score.n_cases += 1
        try:
            predicted = predictor_for(case)(case)
        except (Unpredictable, BadInput) as error:
            score.skipped.append((case.id, str(error)))
            continue
        rows = list(_rows(case, predicted))
        if not rows and "fits" not in predicted:
            score.skipped.append((case.id, "nothing that was measured is predicted"))
            continue
        score.n_predicted += 1
        score.rows.extend(rows)
        if "fits" in predicted and isinstance(case.measured.get("fits"), bool) and case.scored:
            score.verdicts.append((case.id, case.measured["fits"], float(predicted["fits"])))
    return score


def _rows(case: Case, predicted: dict[str, Any]) -> Iterable[Row]:
    measured = case.measured
    for key, prediction in predicted.items():
        if key in ("fits", "ambiguous_gib"):
            continue
        # A key that is derived from several logged figures carries its own "measured" value.
        value = prediction[0] if isinstance(prediction, tuple) else measured.get(key)
        guess = prediction[1] if isinstance(prediction, tuple) else prediction
        tables = guess if isinstance(guess, dict) else {"": guess}
        values = value if isinstance(value, dict) else {"": value}
        for place, one in tables.items():
            seen = values.get(place)
            # A measured 0 has no error in percent.
            if isinstance(seen, int | float) and not isinstance(seen, bool) and seen:
                yield Row(case.id, f"{case.prefix}.{key}", seen, one.value, one.low, one.high, case.scored)
    ambiguous = case.fields.get("ambiguous")
    if ambiguous and "ambiguous_gib" in predicted:
        guess = predicted["ambiguous_gib"]
        readings = [ambiguous["decimal_gib"], ambiguous["binary_gib"]]
        nearer = min(readings, key=lambda reading: abs(reading - guess.value))
        name = f"{case.prefix}.ambiguous_gib"
        yield Row(case.id, name, nearer, guess.value, guess.low, guess.high, case.scored)


def _summary(rows: list[Row]) -> dict[str, float]:
    errors = sorted(abs(row.error) for row in rows)
    return {
        "n": len(rows),
        "median_ape": median(errors),
        "p90_ape": quantile(errors, 0.9),
        "bias": sum(row.error for row in rows) / len(rows),
        "coverage90": sum(row.covered for row in rows) / len(rows),
        "under": sum(row.under for row in rows) / len(rows),
    }


def quantile(ordered: list[float], share: float) -> float:
    """Quantile of sorted values, interpolated linearly."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else round(value, 4)
