"""The search: every way judged, its figures, what limits leave, and the best of each device and format."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from willfit.engines.base import Question, Subject
from willfit.hardware.device import Device
from willfit.hardware.prices import Price
from willfit.planning.search.columns import FITS
from willfit.planning.search.figures import Limit, figures_of
from willfit.planning.search.goals import GOALS, TRADED, front, is_more, ranked
from willfit.planning.search.judging import judge
from willfit.planning.search.layouts import MOST, Layout, counts_up_to, servers
from willfit.planning.search.speeds import speeds_of
from willfit.planning.search.ways import Way, Ways

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Whole = NDArray[Any]

#: What people give an engine as the dtype of its cache.
KV_DTYPES = {"vllm": ("auto", "fp8"), "sglang": ("auto", "fp8_e4m3"), "llama.cpp": ("auto", "q8_0")}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is searched for.

    Attributes
    ----------
    goal
        See `goals.GOALS`.
    limits
        What a way must keep.
    most
        How many there are of each device.
    kv_dtypes
        Of the cache, as engines call them; none for those that people give an engine.
    """

    goal: str
    limits: Sequence[Limit] = ()
    most: Mapping[Device, int] = field(default_factory=dict)
    kv_dtypes: Sequence[str] = ()

    @property
    def cost(self) -> str:
        """What is weighed against what a way gives."""
        return "price" if self.goal in ("price", "cost") else "devices"


@dataclass(frozen=True, slots=True)
class Plan:
    """A way that fits and keeps all limits.

    Attributes
    ----------
    figures
        By name (`figures.KINDS`); not a number where one is not known.
    on_front
        Nothing else costs as little and gives as much.
    """

    way: Way
    figures: Mapping[str, float]
    on_front: bool


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a device is not among the plans, by the way that came closest.

    Attributes
    ----------
    figures
        Of a way that fits, but breaks a limit; else empty.
    broken
        The limits that it breaks.
    closeness
        What is left over of a device, as a share; negative if so much is missing.
    """

    way: Way
    figures: Mapping[str, float]
    broken: Sequence[Limit]
    closeness: float


@dataclass(frozen=True, slots=True)
class Searched:
    """What was found.

    Attributes
    ----------
    plans
        The best of each device, and of coarser formats where they do better, the best of all first.
    front
        Ways of any number of devices that nothing else beats, the least first.
    rejected
        Of each device without a plan the way that came closest; those that came closest first.
    judged, fitting
        How many ways were judged, and how many of them surely fit.
    """

    plans: Sequence[Plan]
    front: Sequence[Plan]
    rejected: Sequence[Rejected]
    judged: int
    fitting: int


def search(
    subjects: Mapping[str, Sequence[Subject]],
    devices: Mapping[str, Sequence[Device]],
    question: Question,
    prices: Mapping[Device, Price],
    wanted: Wanted,
    step: Callable[[str], None] = lambda engine: None,
) -> Searched:
    """Judge all ways and rank them.

    Parameters
    ----------
    subjects
        The model in the formats that each engine shall run, by the engine's name.
    devices
        Those that each engine shall run on.
    question
        What shall run on them.
    prices
        Of devices.
    step
        Called with each engine that is begun.
    """
    compared = []
    for engine, on in devices.items():
        step(engine)
        kv_dtypes = wanted.kv_dtypes or KV_DTYPES.get(engine, ("auto",))
        for most in sorted({wanted.most.get(device, MOST) for device in on}):
            kinds = [device for device in on if wanted.most.get(device, MOST) == most]
            ways = judge(subjects[engine], engine, kinds, question, partial(spread, most=most), kv_dtypes)
            compared.append(_compared(ways, question, prices, wanted))
    on_front = _on_front([plan for one in compared for plan in one.front], wanted.cost)
    ways_on_front = {plan.way.key for plan in on_front}
    plans = [replace(plan, on_front=plan.way.key in ways_on_front) for one in compared for plan in one.plans]
    rejected = [one for part in compared for one in part.rejected]
    return Searched(
        plans=_ordered(_worth_coarser(plans, GOALS[wanted.goal][0]), GOALS[wanted.goal]),
        front=on_front,
        rejected=sorted(rejected, key=_distance),
        judged=sum(one.judged for one in compared),
        fitting=sum(one.fitting for one in compared),
    )


def spread(subject: Subject, reach: int, most: int) -> Sequence[tuple[Layout, Sequence[int]]]:
    """All layouts of a server, each with the numbers of servers that make no more devices than `most`."""
    blocks = subject.architecture.blocks
    sparse = any(layer.feed_forward is not None and layer.feed_forward.experts for layer, _ in blocks)
    counts = counts_up_to(most)
    return [
        (layout, [count for count in counts if count * layout.server_devices <= most])
        for layout in servers(min(reach, most), sparse)
    ]


def _compared(ways: Ways, question: Question, prices: Mapping[Device, Price], wanted: Wanted) -> Searched:
    """The ways of one engine."""
    import numpy as np

    context = question.context_for(ways.subjects[0].architecture)
    rows = np.flatnonzero(ways.verdict == FITS)
    speeds = speeds_of(ways, rows, context, question.users)
    figures = figures_of(ways, rows, speeds, prices)
    limit = ways.subjects[0].architecture.max_positions or context
    figures["context"] = np.minimum(figures["users"] / question.users * context, limit)
    kept = ~np.isnan(figures[GOALS[wanted.goal][0]])
    for one in wanted.limits:
        kept &= one.kept(figures[one.kind.name])
    accepted = np.flatnonzero(kept)
    own = {name: values[accepted] for name, values in figures.items()}

    def plans(chosen: Whole, on_front: bool) -> list[Plan]:
        return [
            Plan(
                ways.way(int(rows[accepted[at]])),
                {name: float(values[at]) for name, values in own.items()},
                on_front,
            )
            for at in chosen
        ]

    at = rows[accepted]
    best = _first(ranked(own, GOALS[wanted.goal]), ways.device[at] * len(ways.subjects) + ways.subject[at])
    sets = (ways.device[at] * len(ways.subjects) + ways.subject[at]) * (MOST + 1) + ways.count[at]
    widest = np.unique(np.concatenate([_first(ranked(own, (name,)), sets) for name in TRADED[:2]]))
    chosen = widest[front(own[wanted.cost][widest], [own[name][widest] for name in TRADED])]
    return Searched(
        plans(best, False),
        plans(chosen, True),
        _rejected(ways, rows, kept, figures, wanted.limits),
        len(ways),
        len(rows),
    )


def _first(order: Whole, groups: Whole) -> Whole:
    """Of each group the row that comes first in an order."""
    import numpy as np

    _, places = np.unique(groups[order], return_index=True)
    found: Whole = order[np.sort(places)]
    return found


def _rejected(
    ways: Ways, rows: Whole, kept: Whole, figures: Mapping[str, Whole], limits: Sequence[Limit]
) -> list[Rejected]:
    """Of each device without a plan the way that came closest.

    One that fits, else the one that holds most of the users, else the one that lacks least.
    """
    import numpy as np

    usable = np.array([one.usable_bytes or 1 for one in ways.devices], np.float64)
    closeness = ways.spare / usable[ways.device]
    fits = np.full(len(ways), -1)
    fits[rows] = np.arange(len(rows))
    order = np.lexsort((closeness, ways.room, ways.reason == 0, fits >= 0))[::-1]
    without = ~np.isin(ways.device, np.unique(ways.device[rows[kept]]))
    order = order[without[order]]
    found = []
    for row in _first(order, ways.device):
        at = fits[row]
        own = {name: float(values[at]) for name, values in figures.items()} if at >= 0 else {}
        broken = [one for one in limits if own and not one.kept(np.array(own[one.kind.name]))]
        found.append(Rejected(ways.way(int(row)), own, broken, float(closeness[row])))
    return found


def _distance(one: Rejected) -> tuple[bool, bool, int, float]:
    """How far a rejected way is from a plan."""
    return not one.figures, bool(one.way.reason), -one.way.room, -one.closeness


def _worth_coarser(plans: Sequence[Plan], decisive: str) -> list[Plan]:
    """Without those that a finer format on the same device does as well."""
    sign = -1 if is_more(decisive) else 1
    best: dict[Device, float] = {}
    kept = []
    for plan in sorted(plans, key=lambda one: -one.figures["bits"]):
        value = sign * plan.figures[decisive]
        if value < best.get(plan.way.device, math.inf):
            best[plan.way.device] = value
            kept.append(plan)
    return kept


def _ordered(plans: Sequence[Plan], names: Sequence[str]) -> list[Plan]:
    """Plans of all engines, the best first."""
    import numpy as np

    figures = {name: np.array([plan.figures[name] for plan in plans]) for name in names}
    return [plans[at] for at in ranked(figures, names)] if plans else []


def _on_front(plans: Sequence[Plan], cost: str) -> list[Plan]:
    """Plans of all engines that none of the others beats, the least first."""
    import numpy as np

    def of(name: str) -> Whole:
        return np.array([plan.figures[name] for plan in plans])

    return [plans[at] for at in front(of(cost), [of(name) for name in TRADED])] if plans else []
