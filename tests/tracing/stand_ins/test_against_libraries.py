"""Stand-ins against the libraries themselves, as `tests/oracle/training/stand_ins` recorded them.

Compared are all allocations and frees of an operation in order, and of two steps of whole models.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from willfit.tracing.worker.stand_ins.bitsandbytes.choice import Product, reads_packed  # noqa: E402

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
LINES = {
    line["name"]: line["found"] for line in map(json.loads, (ROOT / "tests/data/stand_ins.jsonl").open())
}
CHOICES = LINES.pop("choices")


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    """What the stand-ins do."""
    done = subprocess.run(
        [sys.executable, str(HERE / "answer.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", LINES)
def test_same_allocations(name: str, answers: dict[str, Any]) -> None:
    assert answers[name] == LINES[name]


def test_every_answer_was_recorded(answers: dict[str, Any]) -> None:
    assert answers.keys() == LINES.keys()


def test_packed_products_are_chosen_alike() -> None:
    wrong = [
        answer
        for *answer, packed in CHOICES
        if reads_packed(
            Product(answer[2], answer[3], answer[4], answer[1]),
            tuple(answer[0]),
            getattr(torch, answer[5]),
            64,
        )
        is not packed
    ]
    assert len(CHOICES) == 3000
    assert 0 < sum(answer[-1] for answer in CHOICES) < 3000
    assert not wrong
