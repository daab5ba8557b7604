"""What is alive, and whose it is: by hand, and against sums over every storage."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from random_traces import storage, traces

from willfit.errors import BadInput
from willfit.tracing import attribution
from willfit.tracing.trace import PhaseStart, Trace


def two_layers() -> Trace:
    """Two layers, the gradient of the upper one, and AdamW's states; what is alive in the end is the peak."""
    build, again = (0, 0, "build"), (2, 1, "backward")
    storages = [
        storage(100, "parameter", op="parameter", name="model.layers.0.mlp.weight", at=build),
        storage(100, "parameter", op="parameter", name="model.layers.1.mlp.weight", at=build),
        storage(40, "parameter", op="parameter", name="model.norm.weight", at=build),
        storage(7, "activation", "model.layers.0.mlp", source="model.py:3"),
        storage(7, "activation", "model.layers.1.mlp", source="model.py:3"),
        storage(100, "gradient", "model.layers.1.mlp", at=again),
        storage(200, "optimizer_state", name="exp_avg", at=(1, 0, "optimizer")),
        storage(300, "optimizer_state", name="exp_avg_sq", at=(1, 0, "optimizer")),
        storage(5, "", "model.norm", at=again),
        storage(1000, "logits", "lm_head"),
    ]
    events = [0, 1, 2, 9, ~9, 3, 4, 5, 6, 7, 8]
    phases = [(0, 0, "build"), (3, 1, "forward"), (5, 2, "forward"), (7, 2, "backward"), (8, 1, "optimizer")]
    return Trace(storages, events, phases=[PhaseStart(at, step, 1, name) for at, step, name in phases])


def test_a_trace_by_hand() -> None:
    trace = two_layers()
    alive = attribution.alive_at(trace, 10)
    assert attribution.by_category(alive) == {
        "parameter": 240, "gradient": 100, "optimizer_state": 500, "activation": 14, "temporary": 5,
    }  # fmt: skip
    assert attribution.by_state(alive) == {"exp_avg_sq": 300, "exp_avg": 200}

    groups = {(group.category, group.module): group for group in attribution.groups(alive)}
    mlp = groups["parameter", "model.layers.*.mlp.weight"]
    assert (mlp.nbytes, mlp.count, len(mlp.paths)) == (200, 2, 2)
    kept = groups["activation", "model.layers.*.mlp"]
    assert (kept.nbytes, kept.count, kept.source, kept.phase, kept.op) == (
        14,
        2,
        "model.py:3",
        "forward",
        "mm",
    )
    assert groups["gradient", "model.layers.1.mlp"].nbytes == 100, "a group of one keeps its number"
    assert [group.state for group in groups.values() if group.category == "optimizer_state"]

    (share,) = attribution.by_module(alive)
    assert (share.module, share.modules, share.op, share.nbytes) == ("model.layers.*.mlp", 2, "mm", 14)
    assert [(row.layer, row.by_category) for row in attribution.by_layer(alive)] == [
        ("model.layers.0", {"parameter": 100, "activation": 7}),
        ("model.layers.1", {"parameter": 100, "gradient": 100, "activation": 7}),
        ("", {"optimizer_state": 500}),
        ("model.norm", {"parameter": 40, "temporary": 5}),
    ]


def test_states_are_told_apart_though_they_look_alike() -> None:
    storages = [
        storage(8, "optimizer_state", name=name, at=(1, 0, "optimizer")) for name in ("exp_avg", "exp_avg_sq")
    ]
    assert [(group.state, group.nbytes) for group in attribution.groups(storages)] == [
        ("exp_avg", 8),
        ("exp_avg_sq", 8),
    ]


def test_peaks_are_of_the_last_step_that_has_a_phase() -> None:
    found = [(p.phase, p.step, p.event, p.nbytes) for p in attribution.phase_peaks(two_layers())]
    assert found == [
        ("build", 0, 2, 240),
        ("forward", 2, 6, 254),  # not the logits of step 1
        ("backward", 2, 7, 354),
        ("optimizer", 1, 10, 859),
    ]


def test_by_default_the_peak() -> None:
    trace = two_layers()
    assert trace.totals[3] == 1240
    assert sum(s.nbytes for s in attribution.alive_at(trace)) == 1240


@given(traces())
def test_sums_are_the_total_at_every_event(trace: Trace) -> None:
    every = attribution.categories_at(trace, range(len(trace.events)))
    for event, total in enumerate(trace.totals):
        made = [e for e in trace.events[: event + 1] if e >= 0]
        freed = {~e for e in trace.events[: event + 1] if e < 0}
        alive = [trace.storages[index] for index in made if index not in freed]
        sums = Counter[str]()
        for one in alive:
            sums[one.category or "temporary"] += one.nbytes
        assert sum(sums.values()) == total
        found = attribution.alive_at(trace, event)
        assert found == alive
        assert attribution.by_category(found) == {name: size for name, size in sums.items() if size}
        assert every[event] == dict.fromkeys(every[event], 0) | sums
        groups = attribution.groups(found)
        assert (sum(g.nbytes for g in groups), sum(g.count for g in groups)) == (total, len(alive))
        assert sum(row.nbytes for row in attribution.by_layer(found)) == total


@given(traces())
def test_phases_peaks_are_their_maxima(trace: Trace) -> None:
    """Of what is alive when a phase begins and after each of its events, whether it has any or none."""
    ends = [*(phase.event for phase in trace.phases[1:]), len(trace.events)]
    last = {phase.phase: phase.step for phase in trace.phases}
    expected = dict.fromkeys(last, 0)
    for phase, end in zip(trace.phases, ends, strict=True):
        if phase.step == last[phase.phase]:
            before = trace.totals[max(0, phase.event - 1)]
            expected[phase.phase] = max(expected[phase.phase], before, *trace.totals[phase.event : end])
    peaks = attribution.phase_peaks(trace)
    assert {peak.phase: (peak.step, peak.nbytes) for peak in peaks} == {
        name: (step, expected[name]) for name, step in last.items()
    }
    assert all(peak.nbytes == trace.totals[peak.event] == sum(peak.by_category.values()) for peak in peaks)


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([], "empty"),
        ([0, 0], "storage 0 of event 1 is made twice"),
        ([~0], "storage 0 of event 0 is not alive"),
        ([0, ~0, ~0], "storage 0 of event 2 is not alive"),
        ([0, 2], "storage 2 of event 1 is not in the trace"),
        ([0, ~2], "storage 2 of event 1 is not in the trace"),
    ],
)
def test_malformed_traces_are_refused(events: list[int], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        attribution.alive_at(Trace([storage(1), storage(2)], events))


def test_unknown_words_are_refused() -> None:
    with pytest.raises(BadInput, match="unknown category 'weights'"):
        attribution.check(Trace([storage(1, "weights")], [0]))
    with pytest.raises(BadInput, match="no event 3"):
        attribution.alive_at(Trace([storage(1)], [0]), 3)
