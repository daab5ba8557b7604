"""The constants of training, and the cases that show them."""

from __future__ import annotations

from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.quantities import GIB
from willfit.training.estimate import estimate
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit
from willfit.validation.scoring import Unpredictable
from willfit.validation.training_cases import machine_of, settings_of, subject_of
from willfit.validation.training_readings import is_settled


def _found(case: Case) -> Estimate | None:
    """The estimate of a run of which its source says everything that memory depends on."""
    if case.kind != "train":
        return None
    try:
        if not is_settled(case):
            return None
        return estimate(subject_of(case), machine_of(case), settings_of(case))
    except (BadInput, Unpredictable):
        return None


def _ratio(case: Case, key: str, figure: str) -> float | None:
    measured = case.measured.get(key)
    if measured is None or (found := _found(case)) is None:
        return None
    return float(measured) * GIB / float(found.details[figure][0])


def _allocated(case: Case) -> float | None:
    """torch's allocated peak over what the rules give."""
    return _ratio(case, "peak_allocated_gib", "allocated")


def _reserved(case: Case) -> float | None:
    """torch's reserved peak over the allocated one that the rules give."""
    return _ratio(case, "peak_reserved_gib", "reserved")


def _shown(case: Case) -> float | None:
    """What the driver shows over what the rules give inside and outside of torch."""
    return _ratio(case, "nvidia_smi_gib", "shown") if case.measured.get("fits") else None


FITS = (
    Fit("training.allocated_ratio", "ratio", _allocated, conformal=True),
    Fit("training.reserved_ratio", "ratio", _reserved, conformal=True),
    Fit("training.shown_ratio", "ratio", _shown, conformal=True),
)
