"""The constants of the transformers engine, and the cases that show them."""

from __future__ import annotations

from willfit.engines.transformers import estimate
from willfit.estimate import Estimate
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit
from willfit.validation.predictors.transformers import hidden_bytes, machine_of, settings_of, subject_of

#: Engines whose cases are of torch's counters.
_IN_TORCH = ("transformers", "litgpt")


def _context(case: Case) -> float | None:
    """What the driver shows beyond torch's reserved memory and its own reserve, if the card is not full."""
    whole, reserved = case.measured.get("nvidia_smi_gib"), case.measured.get("peak_reserved_gib")
    if case.engine != "transformers" or whole is None:
        return None
    if reserved is None and case.settings.get("batch") == 1 and not case.settings.get("quantization"):
        # One sequence leaves little behind, so what the rules give for torch will do.
        reserved = _estimate(case).details["devices"][0]["allocated"][0] / GIB
    elif case.settings.get("phase") != "prefill":
        return None
    if reserved is None:
        return None
    return float(whole - reserved) * GIB - sum(map(hidden_bytes, machine_of(case).devices))


def _reserved_ratio(case: Case) -> float | None:
    """Reserved memory over weights and all stages of the prefill together."""
    reserved = case.measured.get("peak_reserved_gib")
    if case.engine != "transformers" or reserved is None or case.settings.get("phase") != "prefill":
        return None
    detail = _estimate(case).details["devices"][0]
    return float(reserved) * GIB / float(detail["resident"] + detail["stages"])


def _allocated_ratio(case: Case) -> float | None:
    """torch's peak over what the rules give."""
    allocated = case.measured.get("peak_allocated_gib")
    if case.kind != "generate" or case.engine not in _IN_TORCH or allocated is None:
        return None
    details = _estimate(case).details["devices"]
    if case.fields.get("measured_scope") != "sum_over_gpus":
        details = details[:1]
    return float(allocated) * GIB / float(sum(detail["allocated"][0] for detail in details))


def _estimate(case: Case) -> Estimate:
    subject = subject_of(case)
    return estimate(subject, machine_of(case), settings_of(case)[1])


FITS = (
    Fit("cuda.context", "bytes", _context),
    Fit("transformers.reserved_ratio", "ratio", _reserved_ratio),
    Fit("transformers.allocated_ratio", "ratio", _allocated_ratio),
)
