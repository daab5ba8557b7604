"""What a fitted constant is observed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from willfit.checkpoints.catalogue import CatalogueEntry
from willfit.validation.cases import Case


@dataclass(frozen=True, slots=True)
class Fit:
    """One constant of `calibration.json`.

    Attributes
    ----------
    name
        Its name there.
    unit
        `bytes` or `ratio`.
    observe
        One observation of it from a case; None if the case says nothing about it.
    conformal
        It widens the interval of a whole prediction, so its quantiles allow for their number being finite.
    once_for
        The field of cases (`source`, `gpu`) each value of which counts once, with the median of what its cases show:
        measurements of one source, or of one kind of card, are not independent.
    """

    name: str
    unit: str
    observe: Callable[[Case], float | None]
    conformal: bool = False
    once_for: str = ""


@dataclass(frozen=True, slots=True)
class CatalogueFit:
    """One constant that bundled models show, not measurements.

    Attributes
    ----------
    name, unit
        As in `Fit`.
    observe
        One observation of it from a bundled model; None if the model says nothing about it.
    """

    name: str
    unit: str
    observe: Callable[[CatalogueEntry], float | None]
