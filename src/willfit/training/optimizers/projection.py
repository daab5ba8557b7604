"""Low-rank projections of gradients: which matrices, on which side, what is kept of the projector."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from willfit.errors import BadInput
from willfit.training.optimizers.passes import Binding
from willfit.training.optimizers.records import Job
from willfit.training.parameters import Parameter

#: Bytes of float32, in which a decomposition runs.
WIDE = 4

_KINDS = ("std", "reverse_std", "left", "right", "full")


def targets(job: Job) -> list[Parameter]:
    """Matrices whose gradients are projected.

    Option `target_modules`: `all-linear` (the Trainer's, with the head), a pattern, or parts of names; if nothing is
    said, the linear layers of attention and MLP.
    """
    asked = job.options.get("target_modules")
    linear = [one for one in job.parameters if one.kind == "linear" and len(one.shape) == 2]
    if asked is None:
        return [one for one in linear if one.part not in ("head", "router", "embedding")]
    if isinstance(asked, str):
        if asked.replace("_", "-") == "all-linear":
            return linear
        if asked == "all":
            return [one for one in linear if one.part != "head"]
        try:
            return [one for one in linear if re.fullmatch(asked, one.name.removesuffix(".weight"))]
        except re.error:
            raise BadInput(f"target_modules {asked!r} is no pattern", "give a list of names") from None
    names = [str(name) for name in asked]  # type: ignore[attr-defined]
    return [one for one in linear if any(name in one.name for name in names)]


@dataclass(frozen=True, slots=True)
class Projection:
    """The projection of one matrix.

    Attributes
    ----------
    rows, columns
        Of the matrix.
    rank
        Of the projection; a decomposition has no more than the smaller side.
    side
        `right`: columns become `rank`; `left`: rows do; `full`: both.
    """

    rows: int
    columns: int
    rank: int
    side: Literal["left", "right", "full"]

    @property
    def low(self) -> int:
        """Elements of the projected gradient."""
        if self.side == "full":
            return self.rank * self.rank
        return self.rank * (self.rows if self.side == "right" else self.columns)

    @property
    def low_shape(self) -> tuple[int, int]:
        """Its shape."""
        if self.side == "full":
            return self.rank, self.rank
        return (self.rows, self.rank) if self.side == "right" else (self.rank, self.columns)

    @property
    def matrix(self) -> int:
        """Elements of the projector that are used."""
        right, left = self.rank * self.columns, self.rank * self.rows
        return {"right": right, "left": left, "full": right + left}[self.side]

    @property
    def decomposed(self) -> int:
        """Elements of the decomposition's matrices whose first rows or columns these are."""
        least = min(self.rows, self.columns)
        right, left = least * self.columns, least * self.rows
        return {"right": right, "left": left, "full": right + left}[self.side]


def projection(parameter: Parameter, rank: int, kind: str, limited: bool = True) -> Projection:
    """How a matrix is projected.

    Parameters
    ----------
    kind
        `std` makes the longer side's gradient thin, `reverse_std` the other way round.
    limited
        Whether the rank is bounded by the smaller side (decompositions), or is what was asked (random matrices).

    Raises
    ------
    BadInput
        For an unknown kind.
    """
    if kind not in _KINDS:
        raise BadInput(f"no projection {kind!r}", f"known: {', '.join(_KINDS)}")
    rows, columns = parameter.shape
    tall = rows >= columns
    side: Literal["left", "right", "full"]
    if kind == "full":
        side = "full"
    elif kind in ("left", "right"):
        side = "left" if kind == "left" else "right"
    else:
        side = "right" if tall == (kind == "std") else "left"
    return Projection(rows, columns, min(rank, rows, columns) if limited else rank, side)


def kept(one: Projection, width: int) -> tuple[int, str]:
    """Elements of a decomposed projector that stay, and their dtype.

    With float32 gradients the projector is a view of the decomposition's matrix, which stays whole; narrower ones get
    a copy of what is used (galore-torch `galore_projector.py: get_orthogonal_matrix`).
    """
    return (one.decomposed, "fp32") if width == WIDE else (one.matrix, "")


def decomposition(one: Projection, width: int, weighs: bool = True) -> list[Binding]:
    """What a decomposition binds until the new projector has replaced the one before it.

    Parameters
    ----------
    width
        Bytes of an element of the gradient.
    weighs
        The other matrix is weighed with the singular values, though nothing uses it (GaLore; Fira does not).
    """
    rows, columns, rank = one.rows, one.columns, one.rank
    least = min(rows, columns)
    found: list[Binding] = [
        ("matrix", 0 if width == WIDE else rows * columns * WIDE),
        ("U", rows * least * WIDE), ("s", least * WIDE), ("Vh", least * columns * WIDE),
    ]  # fmt: skip
    if weighs and one.side != "full":
        other = rows if one.side == "right" else columns
        found += [("diag", rank * rank * WIDE), ("other", other * rank * WIDE), ("diag", 0)]
    if width != WIDE:
        found.append(("projector", one.matrix * width))
    return [*found, ("matrix", 0), ("other", 0), ("U", 0), ("s", 0), ("Vh", 0), ("projector", 0)]


def drawn(one: Projection, width: int) -> list[Binding]:
    """What drawing a random projector binds (apollo-torch `random_projector.py: get_orthogonal_matrix`)."""
    wide = one.matrix * WIDE
    found: list[Binding] = [
        ("matrix", 0 if width == WIDE else one.rows * one.columns * WIDE),
        ("randn", wide), ("proj", wide), ("randn", 0),
    ]  # fmt: skip
    if width != WIDE:
        found += [("projector", one.matrix * width)]
    return [*found, ("matrix", 0), ("proj", 0), ("projector", 0)]


def back(one: Projection, width: int) -> list[Binding]:
    """What projecting back binds: the product, and the product scaled."""
    size = one.rows * one.columns * width
    if one.side != "full":
        return [("full", size), ("scaled", size), ("full", 0)]
    half = one.rows * one.rank * width
    return [("half", half), ("full", size), ("half", 0), ("scaled", size), ("full", 0)]


def renamed(bindings: Sequence[Binding], old: str, new: str, size: int) -> list[Binding]:
    """The bindings, after which a variable takes over what another one holds."""
    return [*bindings, (old, 0), (new, size)]
