"""Traces on a fake process group against real ranks on the CPU, and against PyTorch's own profiler."""

from __future__ import annotations

import subprocess
import sys
from itertools import accumulate
from pathlib import Path

import pytest

pytest.importorskip("torch")

from rank_cases import ALIKE, CASES, PROFILED

from willfit.tracing.child import traced
from willfit.tracing.question import Question
from willfit.tracing.trace import Trace

RANK = Path(__file__).with_name("rank.py")
#: Bytes of scalars that kernels make for themselves, which only the profiler sees.
SCALARS = 32
#: Tries, as gloo's own threads let go of tensors when they come to it.
TRIES = 8


def answers(case: str, folder: Path, *how: str) -> bytes:
    """What the first of a case's ranks wrote."""
    folder.mkdir()
    ranks = [
        subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                RANK,
                case,
                str(rank),
                folder / "store",
                folder / "answer",
                *how,
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(CASES[case].ranks)
    ]
    said = [rank.communicate(timeout=180)[1] for rank in ranks]
    assert not any(rank.returncode for rank in ranks), said[0][-3000:]
    return (folder / "answer").read_bytes()


def course(trace: Trace) -> list[int]:
    """Bytes at each mark, and at the peak."""
    return [*(trace.totals[mark.event - 1] for mark in trace.marks), trace.totals[trace.peak_event]]


def used_map(case: str, trace: Trace) -> int:
    """The reducer's count of used parameters is on the host as well, which is this device."""
    names = [storage.nbytes for storage in trace.storages if storage.name == "used parameters"]
    return sum(names) if case.startswith("ddp") else 0


@pytest.mark.parametrize("case", ALIKE)
def test_a_trace_goes_as_a_real_rank_does(case: str, tmp_path: Path) -> None:
    """To the byte, after each phase of two steps and at the peak."""
    trace = traced(Question(CASES[case], path="fake-cpu"))
    expected = course(trace)
    for attempt in range(TRIES):
        real = course(Trace.from_bytes(answers(case, tmp_path / str(attempt))))
        differences = {there - here for here, there in zip(expected, real, strict=True)}
        if differences == {used_map(case, trace)}:
            return
    pytest.fail(f"{case}: real ranks have {differences} bytes more")


@pytest.mark.parametrize("case", PROFILED)
def test_the_profiler_sees_the_same_peak(case: str, tmp_path: Path) -> None:
    """Beside workspaces, which a CPU has not."""
    trace = traced(Question(CASES[case], path="fake-cpu"))
    changes = [
        0 if trace.storages[max(event, ~event)].category == "workspace"
        else trace.storages[event].nbytes if event >= 0
        else -trace.storages[~event].nbytes
        for event in trace.events
    ]  # fmt: skip
    peak = max(accumulate(changes)) + used_map(case, trace)
    for attempt in range(TRIES):
        real = int(answers(case, tmp_path / str(attempt), "profiled"))
        if 0 <= real - peak <= SCALARS:
            return
    pytest.fail(f"{case}: the profiler saw {real}, not {peak} bytes")
