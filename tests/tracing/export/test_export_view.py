"""A trace cut down loses no maximum, and its parts are its sum."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_traces import storage, traces

from willfit.errors import BadInput
from willfit.tracing.export.view import bands, step_word, steps, top_of, view
from willfit.tracing.trace import PhaseStart, Trace


@given(traces(), st.integers(1, 60), st.data())
def test_nothing_that_matters_is_lost(trace: Trace, points: int, data: st.DataObject) -> None:
    count = len(trace.events)
    reserved = data.draw(st.lists(st.integers(0, 10**6), max_size=count))
    seen = view(trace, points, reserved)
    assert len(seen.events) == min(points, count)
    assert seen.events == sorted(set(seen.events))
    assert seen.totals == [trace.totals[event] for event in seen.events]
    assert seen.totals[seen.peak] == max(seen.totals) == max(trace.totals)
    assert seen.events[seen.peak] == trace.totals.index(max(trace.totals))
    columns = zip(*seen.series.values(), strict=True) if seen.series else [()] * len(seen.events)
    assert [sum(column) for column in columns] == seen.totals
    assert max(seen.reserved, default=None) == max(reserved, default=None)
    assert seen.failed == (len(reserved) if 0 < len(reserved) < count else None)
    if points >= count:
        assert seen.totals == trace.totals
        assert seen.reserved == reserved
    # No stretch is passed over: between neighbours lies less than two of them.
    assert all(b - a < 2 * (count / len(seen.events) + 1) for a, b in pairwise(seen.events))


@given(traces())
def test_bands_cover_the_trace_once(trace: Trace) -> None:
    found = bands(trace)
    assert [band.start for band in found] == [0, *(band.end for band in found[:-1])]
    assert found[-1].end == len(trace.events)
    assert all((a.phase, a.step) != (b.phase, b.step) for a, b in pairwise(found))
    merged = steps(found)
    assert (merged[0].start, merged[-1].end) == (0, len(trace.events))
    assert all(a.step != b.step and a.end == b.start for a, b in pairwise(merged))


def test_a_limit_far_above_does_not_squeeze_the_chart() -> None:
    seen = view(Trace([storage(100)], [0]), 10)
    assert [top_of(seen, capacity) for capacity in (0, 50, 120, 10_000)] == [100, 100, 120, 100]


def test_a_step_of_a_generation_is_a_token() -> None:
    assert step_word(Trace(phases=[PhaseStart(0, 1, 0, "prefill")])) == "token"
    assert step_word(Trace(phases=[PhaseStart(0, 1, 0, "forward")])) == "step"


def test_what_cannot_be_shown_is_said() -> None:
    with pytest.raises(BadInput, match="trace is empty"):
        view(Trace(), 10)
    with pytest.raises(BadInput, match="2 values of reserved bytes for 1 events"):
        view(Trace([storage(1)], [0]), 10, [5, 6])
    with pytest.raises(BadInput, match="0 points"):
        view(Trace([storage(1)], [0]), 0)
