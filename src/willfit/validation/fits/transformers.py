"""The constants of the transformers engine, and the cases that show them."""

from __future__ import annotations

from willfit.engines.transformers import estimate
from willfit.engines.transformers.readings import Reading, hidden_bytes, readings
from willfit.estimate import Estimate
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit
from willfit.validation.predictors.transformers import machine_of, settings_of, shown_gib, subject_of

#: Above this many tokens of the prompt, what a source's figure holds beside the context is too much to be known well.
_SHORT = 4096


def _host_process(case: Case) -> float | None:
    """What a process holds in RAM once a model is on its device and has run."""
    held, settings = case.measured.get("host_ram_gib"), case.settings
    if not _generates(case) or not held or settings.get("phase") == "load" or settings.get("offload"):
        return None
    return float(held) * GIB


#: Engines whose cases are of torch's counters.
_IN_TORCH = ("transformers", "litgpt")


def _context(case: Case) -> float | None:
    """What the driver shows beyond torch's memory and its own reserve, if the card is not full."""
    whole = case.measured.get("nvidia_smi_gib")
    settings = case.settings
    if not _generates(case) or whole is None or settings.get("phase") == "load":
        return None
    if (
        int(settings.get("batch", 1)) > 1
        or int(settings.get("input_len", 1)) > _SHORT
        or settings.get("quantization")
    ):
        return None
    inside = case.measured.get("peak_reserved_gib")
    if inside is None:
        # One sequence leaves little behind, so what the rules give for torch will do.
        seen = _readings(case)
        which = "allocated" if case.fields.get("framework") == "optimum" else "after"
        inside = sum(getattr(one, which)[0] for one in seen) / GIB
    devices = machine_of(case).devices
    return (float(whole - inside) * GIB - sum(map(hidden_bytes, devices))) / len(devices)


def _reserved_ratio(case: Case) -> float | None:
    """torch's reserved peak over what the replay of its allocator gives."""
    reserved = case.measured.get("peak_reserved_gib")
    if not _generates(case) or reserved is None:
        return None
    seen = _readings(case)
    if any(one.full for one in seen):
        return None
    return float(reserved) * GIB / float(sum(one.reserved[0] for one in seen))


def _allocated_ratio(case: Case) -> float | None:
    """torch's peak over what the rules give."""
    allocated = case.measured.get("peak_allocated_gib")
    if case.kind != "generate" or case.engine not in _IN_TORCH or allocated is None:
        return None
    details = _estimate(case).details["devices"]
    if case.fields.get("measured_scope") != "sum_over_gpus":
        details = details[:1]
    return float(allocated) * GIB / float(sum(detail["allocated"][0] for detail in details))


def _generates(case: Case) -> bool:
    return case.kind == "generate" and case.engine == "transformers"


def _readings(case: Case) -> tuple[Reading, ...]:
    return readings(subject_of(case), machine_of(case), settings_of(case)[1])


def _estimate(case: Case) -> Estimate:
    return estimate(subject_of(case), machine_of(case), settings_of(case)[1])


def _shown(case: Case) -> float | None:
    """What the driver shows beyond what is predicted, if the card is not full."""
    shown = case.measured.get("nvidia_smi_gib")
    if not _generates(case) or shown is None:
        return None
    seen = _readings(case)
    return None if any(one.full for one in seen) else float(shown - shown_gib(case, seen)) * GIB


FITS = (
    Fit("transformers.host_process", "bytes", _host_process),
    Fit("cuda.context", "bytes", _context, once_for="source"),
    Fit("transformers.reserved_ratio", "ratio", _reserved_ratio),
    Fit("transformers.allocated_ratio", "ratio", _allocated_ratio),
    Fit("transformers.shown", "bytes", _shown, conformal=True),
)
