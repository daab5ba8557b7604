"""Speeds of many ways to serve a model at once, in NumPy: the same arithmetic as for one, on arrays of rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from willfit.speed.rates import Rates

if TYPE_CHECKING:
    from numpy.typing import NDArray


def stacked(rates: Sequence[Rates], rows: NDArray[Any]) -> Rates:
    """Rates whose figures are arrays.

    Parameters
    ----------
    rates
        Of some devices.
    rows
        Which of them each row is of.
    """
    import numpy as np

    def of(name: str) -> Any:
        values = [getattr(one, name) for one in rates]
        if isinstance(values[0], (int, float)):
            return np.array(values, np.float64)[rows]
        return {kind: np.array([value[kind] for value in values], np.float64)[rows] for kind in values[0]}

    return Rates(**{field.name: of(field.name) for field in fields(Rates)})
