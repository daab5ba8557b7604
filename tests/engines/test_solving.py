"""The largest number that fits, against brute force."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from willfit.engines.solving import largest


@given(st.lists(st.integers(0, 50), min_size=1, max_size=200), st.integers(0, 4000))
def test_equals_brute_force_on_any_rising_staircase(steps: list[int], room: int) -> None:
    sizes = [sum(steps[: n + 1]) for n in range(len(steps))]
    limit = len(sizes) - 1
    expected = max((n for n in range(1, limit + 1) if sizes[n] <= room), default=0)
    assert largest(lambda n: sizes[n] - room, limit) == expected


def test_a_straight_line_takes_a_handful_of_questions() -> None:
    asked: list[int] = []

    def excess(n: int) -> float:
        asked.append(n)
        return 1000 + 37 * n - 1_000_000

    assert largest(excess, 131072) == (1_000_000 - 1000) // 37
    assert len(asked) <= 8
