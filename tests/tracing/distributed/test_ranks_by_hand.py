"""What a rank holds, by hand, and layouts that no trace runs."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from rank_cases import CONFIG, EVEN, MIXED, run

from willfit.errors import BadInput
from willfit.tracing.child import traced
from willfit.tracing.question import Question
from willfit.tracing.trace import Storage, Trace
from willfit.training.settings import LayoutSettings

HIDDEN, WIDE, VOCABULARY, LAYERS, KEYS = 72, 203, 151, 3, 36
#: Rows and columns of a layer's parameters.
LAYER = [(HIDDEN, HIDDEN), (KEYS, HIDDEN), (KEYS, HIDDEN), (HIDDEN, HIDDEN), (WIDE, HIDDEN), (WIDE, HIDDEN),
         (HIDDEN, WIDE), (HIDDEN, 1), (HIDDEN, 1)]  # fmt: skip
ENDS = [(VOCABULARY, HIDDEN), (VOCABULARY, HIDDEN), (HIDDEN, 1)]


def of(layout: LayoutSettings, config: dict[str, Any] = CONFIG, ranks: int = 4, **named: Any) -> Trace:
    return traced(Question(run(layout, config, ranks=ranks, **named)))


def held(trace: Trace, category: str) -> list[Storage]:
    """What there is of a category when the second step begins."""
    event = next(mark.event for mark in trace.marks if (mark.name, mark.step) == ("start", 2))
    return [trace.storages[i] for i in trace.alive_at(event - 1) if trace.storages[i].category == category]


def moments(trace: Trace) -> int:
    return sum(one.nbytes for one in held(trace, "optimizer_state") if one.name.startswith("exp_avg"))


def test_fsdp2_shards_rows_and_gathers_on_streams_of_its_own() -> None:
    """A shard has a quarter of the rows, rounded up, with room for the padding; moments only of rows that are there."""
    trace = of(LayoutSettings(data="fsdp2"), precision=MIXED)
    padded = sum(-(-rows // 4) * columns * 4 for rows, columns in LAYER * LAYERS + ENDS)
    assert sum(one.nbytes for one in held(trace, "parameter")) == padded
    assert moments(trace) == 2 * padded  # the first rank has no padding
    gathered = sum(-(-rows // 4) * 4 * columns * 2 for rows, columns in LAYER)
    layers = [one for one in trace.storages if one.op == "empty" and one.nbytes == gathered]
    assert layers
    assert all(one.category == "communication" for one in layers)
    assert {one.cuda_stream for one in layers if one.place.phase == "forward"}.isdisjoint({0})
    reduced = [one for one in trace.storages if one.category == "gradient" and one.cuda_stream]
    assert reduced
    assert {one.cuda_stream for one in reduced}.isdisjoint({one.cuda_stream for one in layers})


def test_fsdp1_shards_flat_parameters() -> None:
    trace = of(LayoutSettings(data="fsdp1"), precision=MIXED)
    units = [LAYER] * LAYERS + [ENDS]
    shards = [-(-sum(rows * columns for rows, columns in unit) // 4) * 4 for unit in units]
    assert sorted(one.nbytes for one in held(trace, "parameter")) == sorted(shards)


def test_ddp_has_buckets_of_all_gradients_from_the_beginning() -> None:
    whole = sum(rows * columns * 4 for rows, columns in LAYER * LAYERS + ENDS)
    for view in (False, True):
        trace = of(LayoutSettings(data="ddp", bucket_view=view))
        buckets = [one for one in held(trace, "communication") if one.name.startswith("bucket")]
        assert sum(one.nbytes for one in buckets) == whole
        assert {one.place.phase for one in buckets} == {"build"}  # the Trainer searches for unused parameters
        end = next(mark.event for mark in trace.marks if (mark.name, mark.step) == ("backward", 2))
        alive = [trace.storages[i] for i in trace.alive_at(end - 1)]
        gradients = sum(one.nbytes for one in alive if one.category == "gradient")
        assert gradients == (0 if view else whole)


def test_tensor_parallel_ranks_divide_all_but_norms() -> None:
    trace = of(LayoutSettings(tp=2), EVEN, 2)
    sizes = sorted(one.nbytes for one in held(trace, "parameter"))
    wide, vocabulary, keys = 204, 152, 24
    layer = [HIDDEN * HIDDEN // 2] * 2 + [keys * HIDDEN // 2] * 2 + [wide * HIDDEN // 2] * 3 + [HIDDEN] * 2
    assert sizes == sorted(4 * size for size in layer * LAYERS + [vocabulary * HIDDEN // 2] * 2 + [HIDDEN])


@pytest.mark.parametrize(
    ("layout", "ranks", "said"),
    [
        (LayoutSettings(pp=2), 4, "pipeline"),
        (LayoutSettings(cp=2), 4, "context-parallel"),
        (LayoutSettings(ep=2), 4, "expert-parallel"),
        (LayoutSettings(ulysses=2), 4, "Ulysses"),
        (LayoutSettings(tp=2, sp=True), 4, "sequence parallelism"),
        (LayoutSettings(data="zero3"), 4, "DeepSpeed's zero3"),
        (LayoutSettings(data="fsdp3"), 4, "'fsdp3'"),
        (LayoutSettings(device_map=True), 4, "device_map"),
        (LayoutSettings(data="none"), 4, "share nothing"),
        (LayoutSettings(tp=3, data="fsdp2"), 4, "tp 3"),
        (LayoutSettings(tp=2, data="ddp"), 4, "ddp with tensor parallelism"),
        (LayoutSettings(data="fsdp2", dp=2), 4, "dp 2"),
        (LayoutSettings(data="fsdp2", shards=3), 4, "3 shards"),
    ],
)
def test_other_layouts_are_refused_in_one_line(layout: LayoutSettings, ranks: int, said: str) -> None:
    from willfit.tracing.worker.distributed.groups import sizes_of

    with pytest.raises(BadInput, match=said) as caught:
        sizes_of(layout, ranks)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "layout", [LayoutSettings(data="fsdp2", wrap="module"), LayoutSettings(data="fsdp1", wrap="x")]
)
def test_units_that_are_not_traced_are_refused(layout: LayoutSettings) -> None:
    with pytest.raises(BadInput, match="units by"):
        of(layout)
