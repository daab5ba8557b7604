"""The closed form is within 1 % of what real model code asks torch for (tests/oracle/training/record_peaks.py)."""

from __future__ import annotations

import pytest
from traced_points import account_of, read

POINTS = read()
MODELS = sorted({point["model"] for point in POINTS})

#: Of a whole step, by its parts.
NEAR = 0.01


@pytest.mark.parametrize("model", MODELS)
def test_peak_is_that_of_a_traced_step(model: str) -> None:
    """Every recorded step of a model."""
    far = []
    for point in POINTS:
        if point["model"] != model:
            continue
        ratio = account_of(point).peak / point["requested_bytes"]
        if abs(ratio - 1) > NEAR:
            far.append((point, f"{ratio - 1:+.2%}"))
    assert not far


def test_points_vary_in_all_that_decides() -> None:
    """Methods, checkpoints, precisions and attentions are all there, each with each."""
    keys = ("method", "checkpointing", "precision", "attention")
    found = {tuple(point[key] for key in keys) for point in POINTS}  # type: ignore[literal-required]
    assert len(found) == 2 * 2 * 3 * 2
