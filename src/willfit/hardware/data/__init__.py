"""The tables that ship with the package, read with the standard library only."""

from __future__ import annotations

import csv
import os


def rows(name: str) -> list[dict[str, str]]:
    """All rows of one of the CSV files in this folder, every value a string."""
    path = os.path.join(os.path.dirname(__file__), name)
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
