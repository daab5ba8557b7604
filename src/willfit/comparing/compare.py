"""Two answers side by side."""

from __future__ import annotations

from willfit.asking import Answer
from willfit.comparing.figures import figures_of
from willfit.comparing.records import Comparison
from willfit.comparing.sides import Side, engine_changes, facts_of
from willfit.comparing.summary import summary_of
from willfit.comparing.terms import Known, place_change
from willfit.estimate import DeviceEstimate, Estimate


def compare(a: Answer, b: Answer) -> Comparison:
    """Compare two answers.

    Parameters
    ----------
    a, b
        The two sides. Differences are what B has more than A.
    """
    sides = Side(a), Side(b)
    changes = engine_changes(*sides)
    known = Known(*sides, facts_of(*sides), changes)
    device = place_change(fullest(a.estimate), fullest(b.estimate), known)
    figures = figures_of(known)
    return Comparison(
        a=a.estimate,
        b=b.estimate,
        summary=summary_of(*sides, device, figures),
        facts=known.facts,
        changes=tuple(change.words for change in changes),
        device=device,
        host=place_change(a.estimate.host, b.estimate.host, known),
        figures=figures,
    )


def fullest(estimate: Estimate) -> DeviceEstimate:
    """The device that takes the largest part of what it can; the first of several alike."""
    return max(
        estimate.devices or (estimate.host,),
        key=lambda place: (
            place.peak_bytes / (place.usable_bytes or place.peak_bytes or 1),
            place.peak_bytes,
        ),
    )
