"""The replay does what torch's own allocator does, address by address and word by word."""

from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from torchs_allocator import HOME, program, replayed, torchs

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(
        not (HOME / "drive").exists(), reason="tests/oracle/allocator/set_up.sh makes the program"
    ),
]

#: Seeds in a run of the test: some seconds.
PROGRAMS = 600


@pytest.mark.parametrize("first", range(0, PROGRAMS, 100))
def test_as_torchs_own(first: int) -> None:
    for seed in range(first, first + 100):
        asked = program(seed)
        assert replayed(asked) == torchs(asked), f"seed {seed}, {asked.settings}"
