"""Traced peaks are those of real runs on the CPU, to the byte, and what the allocator gives beside them is named.

`table.py` prints the figures.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import real_steps

#: Kinds of allocations that may be alive at the allocator's own peak beside storages (`allocations.py`).
EXPLAINED = {"scratch", "scalar", "random state"}


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, Any]]:
    program = Path(__file__).with_name("measure.py")
    done = subprocess.run(
        [sys.executable, str(program), *real_steps.TESTED, *real_steps.KNOWN],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {one["name"]: one for one in found}


@pytest.mark.parametrize("name", real_steps.TESTED)
def test_a_trace_is_exact(measured: dict[str, dict[str, Any]], name: str) -> None:
    found = measured[name]
    assert found["fake"] == found["real"]
    assert found["fake_stream"] == found["real_stream"]  # every allocation and free, in order
    # Of the allocations that the profiler saw, those that are storages have the same peak.
    assert found["storages"] == found["real"]
    # PyTorch's own tracker knows nothing of sums in place; else it is the same.
    assert found["mem_tracker"] == found["new_sums"] >= found["real"]


@pytest.mark.parametrize("name", real_steps.TESTED)
def test_what_the_allocator_gives_beside_storages_is_explained(
    measured: dict[str, dict[str, Any]], name: str
) -> None:
    found = measured[name]
    assert not found[
        "unseen"
    ]  # each allocation is a storage, or of a kind that is known, and each storage is one
    assert found["alone"] == found["profiler"]  # looking on changed nothing else
    assert set(found["beside"]) <= EXPLAINED
    assert found["alone"] - found["real"] == sum(found["beside"].values()) - found["lower"]
    assert found["beside"].get("scalar", 0) <= 512  # single numbers
    if "checkpointing" not in name:
        assert "random state" not in found["beside"]
    assert found["calls"] > found["seen"] > 500


@pytest.mark.parametrize("name", real_steps.KNOWN)
def test_what_is_known_to_differ_does(measured: dict[str, dict[str, Any]], name: str) -> None:
    found = measured[name]
    assert found["real"] - found["fake"] == real_steps.KNOWN[name]
    assert found["real"] == found["storages"] == found["mem_tracker"] == found["alone"]


def test_families_precisions_and_changes_are_all_there() -> None:
    words = [name.split(" / ") for name in real_steps.TESTED]
    assert {model.split(",")[0] for model, *_ in words} == {
        model.split(",")[0] for model in real_steps.MODELS
    }
    assert {precision for _, precision, *_ in words} == set(real_steps.PRECISIONS)
    assert {change for _, _, *changes in words for change in changes} == {*real_steps.CHANGES, "generate"}
