"""Rates of many devices as arrays, for speeds of many ways at once: the same arithmetic as for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from willfit.speed.rates import Rates

if TYPE_CHECKING:
    from numpy.typing import NDArray


def stacked(rates: Sequence[Rates]) -> Rates:
    """Rates whose figures are arrays, an element for each device."""
    import numpy as np

    def of(name: str) -> Any:
        values = [getattr(one, name) for one in rates]
        if isinstance(values[0], (int, float)):
            return np.array(values, np.float64)
        return {kind: np.array([value[kind] for value in values], np.float64) for kind in values[0]}

    return Rates(**{field.name: of(field.name) for field in fields(Rates)})


def chosen(rates: Rates, rows: NDArray[Any]) -> Rates:
    """Of stacked rates those of some devices, an element for each row."""

    def of(values: Any) -> Any:
        if isinstance(values, dict):
            return {kind: value[rows] for kind, value in values.items()}
        return values[rows]

    return Rates(**{field.name: of(getattr(rates, field.name)) for field in fields(Rates)})
