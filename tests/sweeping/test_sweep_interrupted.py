"""A sweep that is stopped goes on where it was, leaves no process behind, and ends with the same file."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import grids
import psutil
import pytest


def test_a_sweep_writes_one_file_and_is_not_done_twice(whole):
    out, printed = whole
    assert printed["points"] == printed["computed"] == sum(printed["verdicts"].values())
    assert printed["errors"] == 0
    assert {path.name for path in out.parent.iterdir()} == {"grid.yaml", "whole.parquet"}
    before = out.stat()
    again = grids.finished(grids.started(out.parent / "grid.yaml", "-o", out))
    assert (again["computed"], again["verdicts"]) == (0, printed["verdicts"])
    assert out.stat().st_mtime_ns == before.st_mtime_ns


def test_what_is_done_is_kept(whole, tmp_path):
    out, grid = tmp_path / "out.parquet", grids.written(tmp_path, grids.MANY_CHUNKS)
    said = _stopped(grid, out, signal.SIGINT, after=2)
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    first = grids.parts_of(out)
    _stopped(grid, out, signal.SIGKILL, after=len(first) + 2)
    kept = grids.parts_of(out)
    assert first < kept
    assert not out.exists()
    printed = grids.finished(grids.started(grid, "-o", out, "--workers", 2))
    assert printed["computed"] == whole[1]["points"] - len(kept) * grids.EACH > 0
    assert out.read_bytes() == whole[0].read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"grid.yaml", "out.parquet"}


def _stopped(grid: Path, out: Path, how: signal.Signals, after: int) -> str:
    """End a sweep by a signal once so many chunks are kept; what it said. No process of it is left."""
    sweep = grids.started(grid, "-o", out, "--workers", 2)
    grids.wait_until(lambda: len(grids.parts_of(out)) >= after)
    children = psutil.Process(sweep.pid).children(recursive=True)
    assert len(children) >= 2
    os.kill(sweep.pid, how)
    _, said = sweep.communicate(timeout=30)
    assert sweep.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    grids.wait_until(lambda: not any(child.is_running() for child in children))
    return said


def test_another_grid_takes_the_parts_that_still_apply_and_a_broken_one_is_made_anew(whole, tmp_path):
    out, grid = tmp_path / "out.parquet", grids.written(tmp_path, grids.MANY_CHUNKS)
    sweep = grids.started(grid, "-o", out, "--workers", 1)
    grids.wait_until(lambda: len(grids.parts_of(out)) >= 3)
    sweep.kill()
    sweep.communicate()
    folder = tmp_path / "out.parquet.parts"
    broken, *whole_parts = sorted(folder.glob("*.parquet"))
    broken.write_bytes(broken.read_bytes()[:-100])
    (folder / "half.unfinished").write_bytes(b"PAR1")
    vary = {**grids.MANY_CHUNKS["vary"], "model": {"catalogue": "qwen2*-*b"}}
    grids.written(tmp_path, {**grids.MANY_CHUNKS, "vary": vary})
    printed = grids.finished(grids.started(grid, "-o", out, "--workers", 2))
    assert printed["points"] > whole[1]["points"]
    assert printed["computed"] == printed["points"] - len(whole_parts) * grids.EACH
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.yaml"], "none.yaml: there is no such file"),
        (["grid.yaml", "--on", "slurm"], "--on is 'slurm'"),
        (["grid.yaml", "-o", "no/where/out.parquet"], "there is no folder no/where"),
        (["grid.yaml", "--workers", "0"], "--workers is 0"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_runs(tmp_path, words, said):
    grid = grids.written(tmp_path, {"fixed": {"model": "Qwen/Qwen3-8B", "gpu": "rtx4090"}})
    words = [str(grid) if word == "grid.yaml" else word for word in words]
    sweep = grids.started(*words)
    out, error = sweep.communicate(timeout=60)
    assert (sweep.returncode, out) == (2, "")
    assert said in error
    assert "Traceback" not in error
