"""vLLM's own planner, run here without a GPU, says what willfit says."""

from __future__ import annotations

import os
from typing import Any

import pytest
from live import PYTHON, Ask, ask_planner, differences
from questions import DIFFERENT, ON_OLD_CARDS, questions

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-oracle: `.ci/run oracle` makes it"),
    pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="asks in one run only: `.ci/run oracle`"),
]

ASKED = questions()


@pytest.fixture(scope="module")
def answers() -> dict[str, dict[str, Any]]:
    """The planner's answers, by question: all in one run."""
    return dict(zip((ask.id for ask in ASKED), ask_planner(ASKED), strict=True))


def known(ask: Ask) -> set[str]:
    """Quantities in which the answers may differ."""
    return set().union(*(names for text, (names, _) in DIFFERENT.items() if text in ask.id))


@pytest.mark.parametrize("ask", ASKED, ids=lambda ask: ask.id)
def test_equal_to_the_planner(ask: Ask, answers: dict[str, dict[str, Any]]) -> None:
    planner = answers[ask.id]
    found = differences(ask, planner)
    assert set(found) == known(ask), f"{found} {planner.get('error', '')}"


def test_most_questions_are_answered(answers: dict[str, dict[str, Any]]) -> None:
    # A stand-in that breaks would turn answers into refusals, of which few are asked for but on old cards.
    others = [answers[ask.id] for ask in ASKED if ask not in ON_OLD_CARDS]
    done = [answer for answer in others if answer["stage"] == "done"]
    assert len(done) > 0.8 * len(others)
    assert {name for name in ("num_blocks", "tokens", "params_bytes") if name in done[0]} >= {
        "num_blocks",
        "tokens",
    }
