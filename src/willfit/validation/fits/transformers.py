"""The constants of the transformers engine, and the cases that show them."""

from __future__ import annotations

from willfit.engines.transformers import estimate
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit
from willfit.validation.predictors.transformers import hidden_bytes, machine_of, settings_of, subject_of


def _context(case: Case) -> float | None:
    """What the driver shows beyond torch's reserved memory and its own reserve, while the card is not full."""
    measured = case.measured
    whole, reserved = measured.get("nvidia_smi_gib"), measured.get("peak_reserved_gib")
    if case.kind != "generate" or whole is None or reserved is None:
        return None
    if case.settings.get("phase") != "prefill":
        return None
    return float(whole - reserved) * GIB - sum(map(hidden_bytes, machine_of(case).devices))


def _reserved_ratio(case: Case) -> float | None:
    """Reserved over allocated, of what comes on top of the loaded weights in a prefill."""
    measured = case.measured
    allocated, reserved = measured.get("peak_allocated_gib"), measured.get("peak_reserved_gib")
    if case.engine != "transformers" or allocated is None or reserved is None:
        return None
    if case.settings.get("phase") != "prefill":
        return None
    subject = subject_of(case)
    _, settings, _ = settings_of(case, subject)
    terms = estimate(subject, machine_of(case), settings).devices[0].terms
    resident = sum(term.bytes for term in terms if term.name in ("weights", "buffers", "fragmentation"))
    return (float(reserved) * GIB - resident) / (float(allocated) * GIB - resident)


FITS = (
    Fit("transformers.cuda_context", "bytes", _context),
    Fit("transformers.reserved_ratio", "ratio", _reserved_ratio),
)
