"""Several constants at once: least squares over logarithms of ratios, for what no single case shows alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import TYPE_CHECKING, Any

from willfit.calibration import Constant
from willfit.validation.cases import Case

if TYPE_CHECKING:
    import numpy as np

    Vector = np.ndarray[Any, np.dtype[np.float64]]

#: Beyond this a logarithm of a ratio counts linearly, so that a few odd cases do not pull the rest (Huber 1964).
_ODD = 0.1

#: How far a constant may lie from where the search starts before that counts as much as one case that is as far off;
#: this settles what the cases do not.
_FREE = 3.0

_STEPS, _SMALL, _LONGEST = 200, 1e-7, 0.5

#: What a step must gain to go on: so little that the digits which are kept are the same on every machine.
_SETTLED = 1e-12
_NUDGE = 1e-4

#: Half the width of a normal 90 % interval in standard deviations.
_Z90 = 1.645


@dataclass(frozen=True, slots=True)
class Solved:
    """A constant that was found.

    Attributes
    ----------
    value, low, high
        The constant and its interval.
    cases
        How many cases say something about it.
    seen
        What its residuals are taken from: observations of it.
    """

    value: float
    low: float
    high: float
    cases: int
    seen: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class JointFit:
    """Constants that are fitted together.

    Attributes
    ----------
    units
        Their names with their units.
    about
        Whether a case is looked at.
    solve
        From cases to what they show; a constant that they say nothing about is left out.
    """

    units: Mapping[str, str]
    about: Callable[[Case], bool]
    solve: Callable[[Sequence[Case]], Mapping[str, Solved]]


def in_force(constants: Mapping[str, float]) -> dict[str, Constant]:
    """Values as constants for `calibration.fitting`."""
    return {name: Constant(name, value, value, value, "", 1) for name, value in constants.items()}


def least_squares(
    start: Mapping[str, float],
    residuals: Callable[[Mapping[str, float]], Sequence[float]],
    clusters: Sequence[Hashable],
) -> dict[str, Solved]:
    """Positive constants that make logarithms of ratios small (Levenberg 1944, with Huber's weights).

    Parameters
    ----------
    start
        Where to begin.
    residuals
        Logarithms of measured over predicted, for some constants.
    clusters
        Which cases are not independent of each other; intervals allow for that (Liang and Zeger 1986).
    """
    import numpy as np

    names = list(start)
    origin = np.array([log(start[name]) for name in names])

    def at(point: Vector) -> Vector:
        constants = {name: exp(value) for name, value in zip(names, point, strict=True)}
        return np.asarray(residuals(constants), dtype=np.float64)

    def cost(off: Vector, point: Vector) -> float:
        odd = np.abs(off)
        huber = np.where(odd <= _ODD, off**2, _ODD * (2 * odd - _ODD))
        return float(huber.sum() + (((point - origin) / _FREE * _ODD) ** 2).sum())

    def slopes(point: Vector, off: Vector) -> Vector:
        steps = np.eye(len(point)) * _NUDGE
        return np.stack([(at(point + step) - off) / _NUDGE for step in steps], axis=1)

    point, off = origin.copy(), at(origin)
    best, damping = cost(off, point), 1e-2
    settled = np.eye(len(names)) * (_ODD / _FREE) ** 2
    slope = slopes(point, off)
    for _ in range(_STEPS):
        weights = np.minimum(1, _ODD / np.maximum(np.abs(off), _SMALL))
        curve = slope.T @ (slope * weights[:, None]) + settled
        down = slope.T @ (weights * off) + settled @ (point - origin)
        gained = 0.0
        while damping < 1 / _SMALL:
            step = np.linalg.solve(curve + damping * np.diag(np.diag(curve)), -down)
            tried = point + np.clip(step, -_LONGEST, _LONGEST)
            then = at(tried)
            if (found := cost(then, tried)) < best:
                gained, best, point, off, damping = best - found, found, tried, then, damping / 5
                break
            damping *= 5
        slope = slopes(point, off)
        if gained <= _SETTLED * best:
            break
    return _solved(names, point, off, slope, clusters)


def _solved(
    names: Sequence[str], point: Vector, off: Vector, slope: Vector, clusters: Sequence[Hashable]
) -> dict[str, Solved]:
    import numpy as np

    weights = np.minimum(1, _ODD / np.maximum(np.abs(off), _SMALL))
    bread = np.linalg.inv(slope.T @ (slope * weights[:, None]) + np.eye(len(names)) * (_ODD / _FREE) ** 2)
    pulls: dict[Hashable, Vector] = {}
    for cluster, row, weight, one in zip(clusters, slope, weights, off, strict=True):
        pulls[cluster] = pulls.get(cluster, np.zeros(len(names))) + weight * one * row
    meat = sum((np.outer(pull, pull) for pull in pulls.values()), np.zeros_like(bread))
    spread = np.sqrt(np.maximum(0, np.diag(bread @ meat @ bread)))
    found = {}
    for place, name in enumerate(names):
        felt = np.abs(slope[:, place]) > _SMALL
        if not felt.any():
            continue
        value, wide = exp(point[place]), exp(_Z90 * min(float(spread[place]), 1.0))
        found[name] = Solved(
            value, value / wide, value * wide, int(felt.sum()), tuple(value * exp(one) for one in off[felt])
        )
    return found
