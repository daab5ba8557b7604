"""Published training runs on one card: how far traced peaks are from measured ones, and that they stay so."""

import importlib.util
import json
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import median

import pytest

from willfit.quantities import GIB
from willfit.tracing import child

ROOT = Path(__file__).parents[3]
LINES = {
    line["id"]: line
    for line in map(json.loads, (ROOT / "tests/data/traced_cases.jsonl").read_text("utf-8").splitlines())
}

#: Traced again here: nothing beside transformers and peft is needed.
AGAIN = (
    "fms-a100-00-full-mistral-7b-v0.1-g1-b4",
    "fms-a100-12-lora-mistral-7b-v0.1-g1-b4",
    "fms-a100-36-accelerated-peft-bnb-mistral-7b-v0.1-g1-b4",
)

#: Why runs with a published allocated peak are not traced: what their lines say, and how many there are.
REASONS = {
    "compiled: what is kept is not the model code's choice": 3,
    # Weights, gradients and two moments alone are more than what was published.
    "GiB of states": 3,
}


@pytest.fixture(scope="module")
def program():
    """The program that wrote the lines."""
    spec = importlib.util.spec_from_file_location("traced_cases", ROOT / "benchmarks/traced_cases.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def measured_allocated(line):
    found = line["measured"]["peak_allocated_gib"]
    return found if isinstance(found, list) else [found]


def test_traced_peaks_are_the_measured_ones():
    traced = [line for line in LINES.values() if "peak_allocated_gib" in line.get("measured", {})]
    apart = sorted(
        abs(line["traced_allocated_bytes"] / GIB / one - 1)
        for line in traced
        for one in measured_allocated(line)
    )
    assert len(apart) == 75
    assert median(apart) <= 0.0002
    assert apart[int(0.9 * len(apart))] <= 0.002
    assert apart[-1] <= 0.04


def test_each_published_run_is_traced_or_left_out_for_a_reason(program):
    published = [case for case in program.candidates() if "peak_allocated_gib" in case.measured]
    assert {case.id for case in published} <= set(LINES)
    left = [LINES[case.id]["excluded"] for case in published if "excluded" in LINES[case.id]]
    assert {reason: sum(reason in why for why in left) for reason in REASONS} == REASONS
    assert len(left) == sum(REASONS.values())


@pytest.mark.skipif(sys.platform != "linux", reason="fake CUDA is for Linux")
def test_runs_are_traced_as_recorded(program):
    cases = {case.id: case for case in program.candidates()}
    rows = [program.row_of(cases[name]) for name in AGAIN]
    for row, trace in zip(rows, child.traced_all([row.question for row in rows]), strict=True):
        line, recorded = program.line_of(row, trace), LINES[row.case.id]
        if all(version(name) == recorded["versions"][name] for name in ("torch", "transformers", "peft")):
            assert line == recorded
        else:
            assert line["traced_allocated_bytes"] == pytest.approx(
                recorded["traced_allocated_bytes"], rel=0.01
            )
