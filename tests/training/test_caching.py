"""What torch's allocator keeps reserved: classes, sizes and the device's room, computed by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from willfit.asking import find_subject
from willfit.calibration import Constant, fitting
from willfit.engines.base import Machine
from willfit.hardware.table import find_device
from willfit.training.caching import Cached, cached, class_of, reserved, spread_of
from willfit.training.estimate import accounts_of, prepared
from willfit.training.frameworks.table import resolve
from willfit.training.run import Run
from willfit.training.settings import LayoutSettings, TrainingSettings

_ONCE = Constant("training.cached.steady", 1.0, 0.5, 1.5, "ratio", 30)


@pytest.fixture(autouse=True)
def _known() -> Iterator[None]:
    shares = {"varied": 4.0, "steady": 1.0, "sharded": 0.75, "expandable": 0.25, "emptied": 0.02}
    known = {
        f"training.cached.{kind}": Constant(f"training.cached.{kind}", one, one / 2, 2 * one, "ratio", 30)
        for kind, one in shares.items()
    }
    with fitting(known):
        yield


def _run(**changes: Any) -> Run:
    architecture = find_subject("Qwen/Qwen2.5-0.5B", offline=True)[0].architecture
    return resolve(replace(TrainingSettings(seq_len=512), **changes), architecture)


@pytest.mark.parametrize(
    ("changes", "ranks", "kind"),
    [
        ({}, 1, "varied"),
        ({"packed": True}, 1, "steady"),
        ({"varied_lengths": False}, 1, "steady"),
        ({"packed": True, "layout": LayoutSettings(data="fsdp1")}, 2, "sharded"),
        ({"packed": True, "layout": LayoutSettings(data="zero3")}, 8, "sharded"),
        ({"packed": True, "layout": LayoutSettings(data="fsdp1")}, 1, "steady"),
        ({"packed": True, "layout": LayoutSettings(data="ddp")}, 8, "steady"),
        ({"expandable_segments": True}, 1, "expandable"),
        ({"expandable_segments": True, "empties_cache": 10}, 1, "emptied"),
        ({"framework": "torchtitan"}, 8, "expandable"),
        ({"framework": "torchtitan", "expandable_segments": False}, 1, "steady"),
    ],
)
def test_what_a_user_decides_gives_the_class(changes: dict[str, object], ranks: int, kind: str) -> None:
    assert class_of(_run(**changes), ranks) == kind


def test_what_passes_is_kept_once_more_where_the_device_has_room() -> None:
    # Holes are possible where hardly anything is cached.
    assert reserved(1000, 900, 60, Cached(1000, 10), _ONCE, None) == (1010, 1005, 1060)
    assert reserved(1000, 900, 0, Cached(1000, 300), _ONCE, None) == (1300, 1150, 1450)
    assert reserved(1000, 900, 0, Cached(1000, 300), _ONCE, (1450, 1500)) == (1300, 1150, 1450)


def test_a_device_that_becomes_full_gets_cached_blocks_back() -> None:
    assert reserved(1000, 900, 0, Cached(1000, 300), _ONCE, (1200, 1250)) == (1200, 900, 1250)
    # What does not fit is said as it is.
    assert reserved(2000, 1900, 0, Cached(2000, 300), _ONCE, (1200, 1250)) == (2300, 2150, 2450)


def test_an_optimizer_step_finds_room_in_what_passes_left() -> None:
    assert reserved(1500, 1400, 0, Cached(1000, 300), _ONCE, None) == (1500, 1400, 1950)
    assert reserved(1500, 1400, 0, Cached(1000, 900), _ONCE, None) == (1900, 1450, 2850)


def test_a_class_without_cases_takes_its_neighbour() -> None:
    with fitting(
        {"training.cached.expandable": Constant("training.cached.expandable", 0.2, -0.1, 0.7, "ratio", 40)}
    ):
        assert spread_of("emptied").value == 0.2
    few = Constant("training.cached.emptied", 0.0, 0.0, 0.0, "ratio", 2)
    other = Constant("training.cached.expandable", 0.2, -0.1, 0.7, "ratio", 40)
    with fitting({few.name: few, other.name: other}):
        found = spread_of("emptied")
    assert (found.value, found.low, found.high) == (0.0, -0.1, 0.7)


def test_logits_are_what_batches_of_other_lengths_leave_behind() -> None:
    """Logarithms of logits and two gradients in float32, with what norm and projection keep of the stream."""
    subject = find_subject("Qwen/Qwen2.5-0.5B", offline=True)[0]
    machine = Machine((find_device("a100-80g"),))
    settings = TrainingSettings(versions={"transformers": "4.44.0"}, seq_len=512)
    run, ranks = prepared(subject, machine, settings)
    account = accounts_of(run, subject, machine, ranks)[0]
    found = cached(account, "varied")
    stream = 512 * 896 * 4
    assert found.extra == 3 * 512 * 151936 * 4 + 3 * stream + 512 * 4
    assert cached(account, "sharded") == Cached(account.peak, account.worst.bytes)
