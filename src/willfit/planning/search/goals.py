"""What the best way is: by which figure first, and what breaks ties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from willfit.planning.search.figures import BY_NAME

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Real = NDArray[Any]

#: Goals with the figures that decide, the first of them first. Headroom breaks ties, and of what leaves as much the
#: faster comes first.
GOALS: dict[str, tuple[str, ...]] = {
    "price": ("price", "bits", "cache-bits", "headroom", "full"),
    "devices": ("devices", "headroom", "bits", "cache-bits", "full"),
    "throughput": ("full", "bits", "cache-bits", "headroom", "devices"),
    "latency": ("per-user", "bits", "cache-bits", "headroom", "devices"),
    "cost": ("cost", "bits", "cache-bits", "headroom", "devices"),
    "context": ("context", "devices", "bits", "cache-bits", "headroom", "full"),
}

#: Shares that agree to the percent are alike.
_PERCENT = 100

#: What is weighed against each other: less of the first, more of the others.
TRADED = ("full", "per-user", "bits")


def is_more(name: str) -> bool:
    """Whether more of a figure is better."""
    return name == "context" or BY_NAME[name].more


def ranked(figures: Mapping[str, Real], order: Sequence[str]) -> Real:
    """Rows, the best first; those without a figure last.

    Parameters
    ----------
    figures
        By name, an element for each row; `context` may be among them.
    order
        Names of figures, the decisive one first.
    """
    import numpy as np

    keys = []
    for name in reversed(order):
        more = is_more(name)
        values = figures[name].astype(np.float64)
        # What agrees to five digits is alike: the next figure decides.
        signed = -values if more else values
        rounded = np.round(signed * _PERCENT) if name == "headroom" else _rounded(signed)
        keys.append(np.where(np.isnan(rounded), np.inf, rounded))
    return np.lexsort(keys)


def front(costs: Real, gains: Sequence[Real]) -> Real:
    """Rows that no other row beats: none costs as little or less and gains as much or more, one of them truly.

    Parameters
    ----------
    costs
        Less is better.
    gains
        More is better, of each.
    """
    import numpy as np

    values = np.stack([_rounded(costs), *(_rounded(-gain) for gain in gains)], axis=1)
    known = ~np.isnan(values).any(axis=1)
    kept: list[int] = []
    best = np.empty((0, values.shape[1]))
    for row in np.lexsort(values.T[::-1]):
        # Sorted so, nothing that comes later can beat what was kept.
        if known[row] and not (best <= values[row]).all(axis=1).any():
            kept.append(int(row))
            best = np.concatenate((best, values[row : row + 1]))
    return np.array(kept, np.int64)


def _rounded(values: Real) -> Real:
    """To five digits."""
    import numpy as np

    values = values.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 10.0 ** (4 - np.floor(np.log10(np.abs(values))))
        found: Real = np.where(values == 0, 0.0, np.round(values * scale) / scale)
    return found
