"""The search over training runs: every scheme on every number of devices, ranked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan

from willfit.hardware.device import Device
from willfit.hardware.prices import Price
from willfit.planning.search.figures import Limit
from willfit.planning.search.goals import front, ranked
from willfit.planning.search.layouts import MACHINE, MOST, counts_up_to
from willfit.planning.training_search.judging import Judge, TrainingWay
from willfit.planning.training_search.schemes import schemes

#: Goals with the figures that decide, the first of them first.
GOALS: dict[str, tuple[str, ...]] = {
    "throughput": ("full", "devices", "headroom"),
    "price": ("price", "headroom", "full"),
    "devices": ("devices", "headroom", "full"),
    "cost": ("cost", "headroom", "devices"),
}


#: More devices than so many times the fewest that do are not tried, unless for speed alone: tokens cost no less there.
_BEYOND = 4


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """A run that surely fits and keeps all limits.

    Attributes
    ----------
    figures
        By name, as of serving: `full` are tokens per second of all devices, `cost` dollars of a million of them.
    on_front
        Nothing else costs as little and is as fast.
    """

    way: TrainingWay
    figures: Mapping[str, float]
    on_front: bool = False


@dataclass(frozen=True, slots=True)
class TrainingSearched:
    """What was found.

    Attributes
    ----------
    plans
        The best of each device and family of schemes, the best of all first.
    front
        Those that nothing else beats, the least first.
    rejected
        Runs that do not fit, cannot be, or break a limit; of each device and family the one that came closest.
    judged, fitting
        How many estimates were made, and how many runs surely fit.
    """

    plans: Sequence[TrainingPlan]
    front: Sequence[TrainingPlan]
    rejected: Sequence[tuple[TrainingWay, str]]
    judged: int
    fitting: int


def search_training(
    judge: Judge,
    devices: Mapping[Device, int],
    prices: Mapping[Device, Price],
    goal: str,
    limits: Sequence[Limit] = (),
    framework: str | None = None,
    step: Callable[[int, int], None] = lambda done, of: None,
) -> TrainingSearched:
    """Judge all runs and rank them.

    Parameters
    ----------
    devices
        Kinds, with how many there are of each.
    framework
        The only program that is tried.
    step
        Called with how many kinds and counts are done, and how many there are.
    """
    sets = [(device, count) for device, most in devices.items() for count in counts_up_to(min(most, MOST))]
    enough: dict[Device, int] = {}
    plans: list[TrainingPlan] = []
    closest: dict[tuple[Device, tuple[str, str]], tuple[tuple[int, float], TrainingWay, str]] = {}
    fitting = 0
    for done, (device, count) in enumerate(sets):
        step(done, len(sets))
        if goal != "throughput" and count > _BEYOND * enough.get(device, MOST):
            continue
        for way in _ways(judge, device, count, framework):
            figures = _figures(way, prices)
            fits = way.estimate is not None and way.estimate.verdict == "fits"
            fitting += fits
            if fits:
                enough.setdefault(device, count)
            broken = [limit for limit in limits if not fits or not _keeps(limit, figures)] if fits else []
            known = figures.get(GOALS[goal][0], nan)
            if fits and not broken and known == known:
                plans.append(TrainingPlan(way, figures))
                continue
            why = "; ".join(f"{one.text} is not kept" for one in broken) or _why(way, fits)
            rank = (2 if fits else 1 if way.estimate is not None else 0), float(way.spare_bytes)
            key = device, way.scheme.family
            if key not in closest or rank > closest[key][0]:
                closest[key] = rank, way, why
    cost = "price" if goal in ("price", "cost") else "devices"
    kept = _front(plans, cost)
    marked = {id(plan) for plan in kept}
    plans = [replace(plan, on_front=True) if id(plan) in marked else plan for plan in plans]
    best = _best(plans, goal)
    have = {(plan.way.device, plan.way.scheme.family) for plan in best}
    rejected = sorted(
        (one for key, one in closest.items() if key not in have), key=lambda one: one[0], reverse=True
    )
    return TrainingSearched(
        best, [replace(plan, on_front=True) for plan in kept], [(way, why) for _, way, why in rejected],
        len(judge.known), fitting,
    )  # fmt: skip


def _ways(judge: Judge, device: Device, count: int, framework: str | None) -> Iterator[TrainingWay]:
    for scheme in schemes(judge.asked, judge.subject, count, framework):
        if count > MACHINE and device.unified_memory:
            continue
        yield from judge.best(device, count, scheme)


def _figures(way: TrainingWay, prices: Mapping[Device, Price]) -> dict[str, float]:
    price = prices[way.device].usd_per_hour * way.count if way.device in prices else nan
    speed = way.speed.figures["tokens_per_s"].value if way.speed is not None else nan
    return {
        "devices": float(way.count),
        "price": price,
        "cost": price / speed / 3600 * 1e6,
        "full": speed,
        "per-user": speed / way.count,
        "headroom": max(0, way.spare_bytes) / (way.device.usable_bytes or 1),
    }


def _keeps(limit: Limit, figures: Mapping[str, float]) -> bool:
    import numpy as np

    return bool(limit.kept(np.array(figures.get(limit.kind.name, nan))))


def _why(way: TrainingWay, fits: bool) -> str:
    if way.why:
        return way.why
    if fits:
        return "its speed or its price is not known"
    verdict = way.estimate.verdict if way.estimate is not None else ""
    return "may fit, but not surely" if verdict == "tight" else ""


def _front(plans: Sequence[TrainingPlan], cost: str) -> list[TrainingPlan]:
    import numpy as np

    if not plans:
        return []
    costs, gains = ([plan.figures[name] for plan in plans] for name in (cost, "full"))
    return [plans[at] for at in front(np.array(costs), [np.array(gains)])]


def _best(plans: Sequence[TrainingPlan], goal: str) -> list[TrainingPlan]:
    """The best of each device and family, the best of all first."""
    import numpy as np

    if not plans:
        return []
    names = GOALS[goal]
    order = ranked({name: np.array([plan.figures[name] for plan in plans]) for name in names}, names)
    seen = set()
    found = []
    for at in order:
        key = plans[at].way.device, plans[at].way.scheme.family
        if key not in seen:
            seen.add(key)
            found.append(plans[at])
    return found
