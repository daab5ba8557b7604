"""How vLLM divides layers over pipeline stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def pipeline_stages(layers: int, stages: int) -> tuple[int, ...]:
    """Layers of each pipeline stage: the remainder goes, one each, to the stages before the last.

    `distributed/utils.py: get_pp_indices`.
    """
    counts = [layers // stages] * stages
    for index in range(2, 2 + layers % stages):
        counts[-index] += 1
    return tuple(counts)


def divided(items: Sequence[Item], counts: Sequence[int]) -> list[Sequence[Item]]:
    """Consecutive parts of so many items each."""
    starts = [sum(counts[:index]) for index in range(len(counts))]
    return [items[start : start + count] for start, count in zip(starts, counts, strict=True)]
