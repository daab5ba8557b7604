"""In which formats people run a model: as it is stored, and what is made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from willfit.engines.base import Subject
from willfit.errors import BadInput

#: Formats that people make for an engine, down to four bits, the finest first, with the fewest bits that a weight of
#: them takes; None for the checkpoint as it is stored.
LADDERS: dict[str, tuple[tuple[str | None, float], ...]] = {
    "llama.cpp": (("q8_0", 8.5), ("q6_k", 6.5625), ("q5_k_m", 5.5), ("q4_k_m", 4.5)),
    "mlx": ((None, 4), ("mlx8", 8.5), ("mlx6", 6.5), ("mlx4", 4.5)),
    "transformers": ((None, 4), ("bnb-int8", 8), ("nf4", 4)),
}  # fmt: skip

#: Of other engines.
SERVED: tuple[tuple[str | None, float], ...] = ((None, 4), ("fp8", 8), ("awq", 4))


def ladder(engine: str) -> tuple[tuple[str | None, float], ...]:
    """The formats of an engine, the finest first."""
    return LADDERS.get(engine, SERVED)


def stored(
    engine: str, names: Sequence[str | None] | None, subject_of: Callable[[str | None], Subject]
) -> list[tuple[str | None, Subject]]:
    """A model in the formats that were asked for, or in those of an engine that take less than it is stored in.

    Parameters
    ----------
    names
        Formats, None among them for the checkpoint's own; None for those of the engine.
    subject_of
        The model in a format.

    Raises
    ------
    BadInput
        If a format that was asked for is none of this model.
    """
    if names is not None:
        return [(name, subject_of(name)) for name in names]
    found: list[tuple[str | None, Subject]] = []
    for name, _ in ladder(engine):
        try:
            subject = subject_of(name)
        except BadInput:
            if name is None:
                raise
            continue
        if not found or subject.weight_bytes < found[-1][1].weight_bytes:
            found.append((name, subject))
    return found
