"""Two answers side by side: what differs, by how many bytes, and why.

A reason is only given where something that enters a term differs, and the reasons of a term add up to its difference.
"""

from willfit.comparing.compare import compare, fullest
from willfit.comparing.records import Comparison, Fact, Figure, PlaceChange, Reason, TermChange, signed

__all__ = [
    "Comparison",
    "Fact",
    "Figure",
    "PlaceChange",
    "Reason",
    "TermChange",
    "compare",
    "fullest",
    "signed",
]
