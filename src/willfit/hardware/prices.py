"""What an hour of a device costs: list prices of clouds with their dates, or a file of the user's own."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from willfit.errors import BadInput
from willfit.hardware.data import rows
from willfit.hardware.device import Device
from willfit.hardware.table import find_device

_COLUMNS = ("device", "usd_per_hour", "as_of", "source")


@dataclass(frozen=True, slots=True)
class Price:
    """What one device costs.

    Attributes
    ----------
    usd_per_hour
        Of one device.
    as_of, source
        When that was so, and who says it.
    """

    usd_per_hour: float
    as_of: str
    source: str


Prices = Mapping[Device, Price]


def bundled_prices() -> Prices:
    """The lowest on-demand list prices that were found in dated public price lists, of one device for an hour."""
    return {find_device(row["device"]): _price(row) for row in rows("prices.csv")}


def read_prices(path: str) -> Prices:
    """Prices of a user's file, instead of the bundled ones.

    Parameters
    ----------
    path
        CSV with the columns device, usd_per_hour and, if known, as_of and source; devices as people type them.

    Raises
    ------
    BadInput
        If the file cannot be read, a column is missing, or a line names no device or no price.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _COLUMNS[:2] if name not in (reader.fieldnames or ())]
            lines = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInput(
            f"{os.path.basename(path)}: prices cannot be read: {reason}", "give a CSV file"
        ) from None
    if missing:
        wanted = ",".join(_COLUMNS)
        raise BadInput(
            f"{os.path.basename(path)}: no column {missing[0]!r}", f"the first line shall be {wanted}"
        )
    found: dict[Device, Price] = {}
    for number, row in lines:
        place = f"{os.path.basename(path)}, line {number}"
        try:
            found[find_device(row["device"] or "")] = _price(row)
        except BadInput as error:
            raise BadInput(f"{place}: {error.message}", error.hint) from None
        except (TypeError, ValueError):
            raise BadInput(
                f"{place}: {row['usd_per_hour']!r} is no price", "write dollars an hour, as 2.29"
            ) from None
    return found


def _price(row: Mapping[str, str]) -> Price:
    usd = float(row["usd_per_hour"])
    if not 0 <= usd < 1e6:
        raise ValueError(usd)
    return Price(usd, row.get("as_of") or "", row.get("source") or "")


def with_slices(prices: Prices, slices: Mapping[Device, Sequence[tuple[Device, int]]]) -> Prices:
    """The prices, and those of MIG slices: each of the card's, which a card makes so many of."""
    shares = {
        one: Price(prices[card].usd_per_hour / number, prices[card].as_of, prices[card].source)
        for card, made in slices.items()
        if card in prices
        for one, number in made
    }
    return {**shares, **prices}
