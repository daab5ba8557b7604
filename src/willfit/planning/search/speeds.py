"""How fast ways are: the roofline of each, in columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from willfit.planning.search.layouts import Layout
from willfit.planning.search.ways import Ways
from willfit.quantities import DTYPE_BYTES
from willfit.speed.certainty import certainty_of
from willfit.speed.columns import chosen, stacked
from willfit.speed.counting import work_of
from willfit.speed.habits import habits_of
from willfit.speed.planning import with_habits
from willfit.speed.rates import rates_of
from willfit.speed.serving import Plan, Stage, decode_step, prefill
from willfit.speed.work import Work

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Real = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Speeds:
    """What is expected of each way; not a number where a device's figures are not known.

    Attributes
    ----------
    first_token_s
        Seconds of one prompt.
    per_user, total
        Tokens per second of one of the users that were asked for, and of all of them.
    full
        Of as many users as the memory holds, all together.
    """

    first_token_s: Real
    per_user: Real
    total: Real
    full: Real


def speeds_of(ways: Ways, rows: Real, context: int, users: int) -> Speeds:
    """The speeds of some rows.

    Parameters
    ----------
    rows
        Of `ways`, as indices.
    context
        Tokens of each sequence.
    users
        Over all servers.
    """
    import numpy as np

    usual = habits_of(ways.engine, ways.version)
    each = [rates_of(device, usual) for device in ways.devices]
    known = [one for one in each if one is not None]
    found = np.full((4, len(ways)), np.nan)
    if not known:
        return Speeds(*found)
    rates = stacked(known)
    place = np.full(len(each), -1)
    place[[at for at, one in enumerate(each) if one is not None]] = np.arange(len(known))
    sure = np.array([certainty_of(ways.engine, ways.version, (one,), users).value for one in ways.devices])
    rows = rows[place[ways.device[rows]] >= 0]
    if not len(rows):
        return Speeds(*found)
    works: dict[tuple[int, int, int, _Computed], Work] = {}
    for subject_at, layout, run, here in _alike(ways, rows):
        key = subject_at, layout.tensor, layout.experts, run
        if key not in works:
            subject = ways.subjects[subject_at]
            works[key] = work_of(
                subject, layout.tensor, layout.experts, run.dtype or None, run.cached_bytes or None
            )
        habits = usual if run.graphs else replace(usual, graphs=False, captured_tokens=0)
        devices = ways.device[here]
        stage = Stage(chosen(rates, place[devices]), 1 / layout.pipeline, 1 / layout.pipeline)
        stages = (stage,) * layout.pipeline
        chunk = run.chunk or habits.chunk
        plan = with_habits(
            Plan(works[key], stages, run.pipelined, layout.experts, layout.data, chunk=chunk), habits
        )
        servers = ways.replicas[here] * layout.data
        room = np.maximum(ways.room[here] / servers, 1.0)
        running = np.minimum(ways.sequences[here], np.floor(room))
        ratio = sure[devices]
        step = decode_step(plan, running, context).total
        found[0, here] = prefill(plan, context).total / ratio
        found[1, here] = ratio / step
        found[2, here] = ratio * np.minimum(running * servers, users) / step
        found[3, here] = ratio * room * servers / decode_step(plan, room, context).total
    return Speeds(*found)


@dataclass(frozen=True, slots=True)
class _Computed:
    """What of `Runs` makes a difference."""

    dtype: str
    cached_bytes: float
    chunk: int
    graphs: bool
    pipelined: bool


def _alike(ways: Ways, rows: Real) -> Iterator[tuple[int, Layout, _Computed, Real]]:
    """Rows of one subject, layout and manner together."""
    import numpy as np

    manners: dict[tuple[object, ...], int] = {}
    computed: list[_Computed] = []
    manner = []
    for run in ways.runs:
        cached = DTYPE_BYTES.get(run.kv_dtype, 0)
        key = DTYPE_BYTES.get(run.dtype, 0), cached, run.chunk, run.graphs, run.pipelined
        if key not in manners:
            computed.append(_Computed(run.dtype, cached, run.chunk, run.graphs, run.pipelined))
        manner.append(manners.setdefault(key, len(manners)))
    columns = ways.subject[rows], ways.layout[rows], np.array(manner)[ways.run[rows]]
    key = (columns[0] * len(ways.layouts) + columns[1]) * len(computed) + columns[2]
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    for here in np.split(rows[order], starts[1:]):
        first = here[0]
        run = computed[manner[ways.run[first]]]
        yield int(ways.subject[first]), ways.layouts[ways.layout[first]], run, here
