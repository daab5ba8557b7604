"""Grids for tests, and running them as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

#: Points of each chunk of `MANY_CHUNKS`.
EACH = 2 * 2 * 2 * 2 - 2 * 2

#: More than twelve chunks of some tenths of a second, one model each.
MANY_CHUNKS = {
    "run": "train",
    "vary": {
        "model": {"catalogue": "qwen2.5-*b"},
        "method": ["full", "lora"],
        "batch": [1, 4],
        "checkpointing": [None, True],
        "gpu": ["rtx4090", "8xh100"],
    },
    "fixed": {"seq-len": "4k", "offline": True},
    "skip": [{"method": "full", "device": "rtx4090"}],
}


def written(folder: Path, grid: dict[str, Any], name: str = "grid.yaml") -> Path:
    """A grid as a file."""
    path = folder / name
    path.write_text(yaml.safe_dump(grid, sort_keys=False))
    return path


def started(*words: object, **environment: str) -> subprocess.Popen[str]:
    """`willfit sweep WORDS... --json` under way, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "willfit", "sweep", *map(str, words), "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )


def finished(sweep: subprocess.Popen[str]) -> dict[str, Any]:
    """What a sweep that goes well prints."""
    out, said = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, said
    found: dict[str, Any] = json.loads(out)
    return found


def parts_of(out: Path) -> set[str]:
    """Chunks that are kept."""
    return {path.name for path in out.with_name(f"{out.name}.parts").glob("*.parquet")}


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something that happens soon."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
