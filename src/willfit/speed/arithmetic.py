"""Arithmetic that serves a number and a NumPy array alike, and never imports NumPy."""

from __future__ import annotations

from typing import Any


def larger(one: Any, other: Any) -> Any:
    """The larger of two, element by element: 2 * max(a, b) = a + b + |a - b|."""
    return (one + other + abs(one - other)) / 2


def distinct_experts(experts: int, chosen: int, tokens: Any) -> Any:
    """How many different experts of a layer some tokens are expected to visit.

    Each token chooses `chosen` of `experts`, all equally likely and independent of the others: an expert is left out
    by all with probability (1 - chosen / experts) ** tokens.
    """
    return experts * (1 - (1 - chosen / experts) ** tokens)
