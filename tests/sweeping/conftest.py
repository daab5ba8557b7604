"""What several tests compare with."""

from __future__ import annotations

import grids
import pytest


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The file of a sweep that nobody stops, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    out = folder / "whole.parquet"
    printed = grids.finished(
        grids.started(grids.written(folder, grids.MANY_CHUNKS), "-o", out, "--workers", 2)
    )
    return out, printed
