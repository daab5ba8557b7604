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
    """Each model is there with both methods, with and without checkpoints, in every precision and attention."""
    for key, values in {
        "method": {"full", "lora"},
        "checkpointing": {"none", "full"},
        "precision": {"bf16", "amp", "fp32"},
    }.items():
        for model in MODELS:
            assert {point[key] for point in POINTS if point["model"] == model} == values
