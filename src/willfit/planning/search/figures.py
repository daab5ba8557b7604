"""What ways are compared by, and limits on it in the user's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from willfit.errors import BadInput
from willfit.hardware.device import Device
from willfit.hardware.prices import Price
from willfit.planning.search.speeds import Speeds
from willfit.planning.search.ways import Ways
from willfit.quantities import DTYPE_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Real = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A figure of a way.

    Attributes
    ----------
    name
        As people ask for it.
    what
        In words.
    unit
        Behind the number; `$` before it.
    more
        Whether more of it is better.
    """

    name: str
    what: str
    unit: str = ""
    more: bool = False


#: All figures, in the order in which they are shown.
KINDS = (
    Kind("devices", "devices in all"),
    Kind("price", "dollars an hour, all devices", "$/h"),
    Kind("cost", "dollars a million generated tokens, all users busy", "$/M"),
    Kind("users", "most users of that context at once", more=True),
    Kind("first-token", "seconds to the first token of a prompt of the whole context", "s"),
    Kind("per-user", "tokens a second of each user", "tok/s", more=True),
    Kind("throughput", "tokens a second of all users that were asked for", "tok/s", more=True),
    Kind("full", "tokens a second of as many users as fit", "tok/s", more=True),
    Kind("bits", "bits of a stored weight", more=True),
    Kind("cache-bits", "bits of a cached element", more=True),
    Kind("headroom", "share of a device that is left over where least is", "%", more=True),
)
BY_NAME = {kind.name: kind for kind in KINDS}

_LIMIT = re.compile(
    r"^\s*(?P<name>[a-z][a-z -]*?)\s*(?P<sign><=|>=|<|>|=|at most|at least)\s*\$?\s*(?P<value>\d+(?:\.\d+)?)\s*"
    r"(?P<unit>%|ms|s|\$|[a-z/$ ]*)\s*$",
    re.IGNORECASE,
)
_SCALES = {"ms": 1e-3, "%": 1e-2}


@dataclass(frozen=True, slots=True)
class Limit:
    """At least or at most so much of a figure.

    Attributes
    ----------
    text
        As it was asked for.
    """

    kind: Kind
    least: bool
    value: float
    text: str

    def kept(self, values: Real) -> Real:
        """Which of some figures keep it; one that is not known does not."""
        return values >= self.value if self.least else values <= self.value


def limit_of(text: str) -> Limit:
    """Read a limit: `per-user >= 20`, `first-token < 2s`, `price <= $30`, `headroom at least 10%`.

    Raises
    ------
    BadInput
        If it cannot be read, or there is no such figure.
    """
    match = _LIMIT.match(text)
    if match is None:
        raise BadInput(
            f"cannot read the limit {text[:60]!r}", "write it as 'per-user >= 20' or 'price <= 30'"
        )
    name = match["name"].strip().lower().replace(" ", "-")
    kind = BY_NAME.get(name)
    if kind is None:
        raise BadInput(f"there is no figure {name[:40]!r}", f"known: {', '.join(BY_NAME)}")
    sign = match["sign"].lower()
    if sign == "=":
        raise BadInput(f"{text[:60]!r}: a limit is at most or at least something", "write <= or >=")
    value = float(match["value"]) * _SCALES.get(match["unit"].lower(), 1.0)
    return Limit(kind, sign in (">", ">=", "at least"), value, " ".join(text.split()))


def figures_of(ways: Ways, rows: Real, speeds: Speeds, prices: Mapping[Device, Price]) -> dict[str, Real]:
    """All figures of some rows, by name; not a number where one is not known."""
    import numpy as np

    usd = np.array([prices[one].usd_per_hour if one in prices else np.nan for one in ways.devices])
    usable = np.array([one.usable_bytes or 1 for one in ways.devices], np.float64)
    bits = np.array([8 * _bytes_of_weight(one) for one in ways.subjects])
    device, count = ways.device[rows], ways.count[rows]
    price = usd[device] * count
    full = speeds.full[rows]
    return {
        "devices": count,
        "price": price,
        "cost": price / full / 3600 * 1e6,
        "users": ways.room[rows],
        "first-token": speeds.first_token_s[rows],
        "per-user": speeds.per_user[rows],
        "throughput": speeds.total[rows],
        "full": full,
        "bits": bits[ways.subject[rows]],
        "cache-bits": np.array([8 * DTYPE_BYTES.get(one.kv_dtype, 2) for one in ways.runs])[ways.run[rows]],
        "headroom": np.maximum(ways.spare[rows], 0) / usable[device],
    }


def _bytes_of_weight(subject: Any) -> float:
    elements = sum(line.tensor.elements * line.times for line in subject.lines if line.tensor.part != "mtp")
    return float(subject.weight_bytes / max(1, elements))
