"""The constants of training, and the cases that show them."""

from __future__ import annotations

from collections.abc import Callable

from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.quantities import GIB
from willfit.training.estimate import estimate
from willfit.training.figures import beside_of, peak_of
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit
from willfit.validation.scoring import Unpredictable
from willfit.validation.training_cases import machine_of, settings_of, subject_of
from willfit.validation.training_readings import is_settled

#: Classes of `training/caching.py`, in the order in which one stands in for another.
_CLASSES = ("varied", "steady", "sharded", "expandable", "emptied")

#: Of a device this share and more is full: blocks may have been given back.
_FULL = 0.93

#: Before this CUDA all kernels were loaded at once, so that a context took over 1 GiB (pytorch #107667).
_LAZY_TEXT = "11.7"


def _found(case: Case) -> Estimate | None:
    if case.kind != "train":
        return None
    try:
        return estimate(subject_of(case), machine_of(case), settings_of(case))
    except (BadInput, Unpredictable):
        return None


def _allocated(case: Case) -> float | None:
    """torch's allocated peak over what the rules give, of a run of which its source says all that decides."""
    measured = case.measured.get("peak_allocated_gib")
    if measured is None or not is_settled(case):
        return None
    found = _found(case)
    return float(measured) * GIB / float(found.details["allocated"][0]) if found else None


def _cached(kind: str) -> Callable[[Case], float | None]:
    def observe(case: Case) -> float | None:
        """The share that is reserved beyond what is allocated, of a run that leaves the device room for it."""
        # What a cache that is emptied keeps is asked at the longest length that is allowed, which is what is known.
        if case.kind != "train" or (kind != "emptied" and not is_settled(case)):
            return None
        found = _found(case)
        if found is None or found.details["training"]["caching"]["class"] != kind:
            return None
        terms = max((device.terms for device in found.devices), key=peak_of)
        usable, beside = found.devices[0].usable_bytes, sum(term.bytes for term in beside_of(terms))
        held, filled = _held(case, beside), found.details["training"]["caching"]
        if held is None or (usable is not None and held + beside > _FULL * usable):
            return None
        if not filled["extra_bytes"] or filled["beside_bytes"] < peak_of(terms):
            return None
        return float((held - filled["beside_bytes"]) / filled["extra_bytes"])

    return observe


def _held(case: Case, beside: int) -> float | None:
    """What torch reserved: its own counter, or what the driver shows without what lies beside."""
    inside, shown = (case.measured.get(key) for key in ("peak_reserved_gib", "nvidia_smi_gib"))
    if inside is not None:
        return float(inside) * GIB
    if shown is None or not case.measured.get("fits"):
        return None
    cuda = parse_version(str(dict(case.fields.get("versions") or {}).get("cuda") or _LAZY_TEXT))
    return float(shown) * GIB - beside if cuda >= parse_version(_LAZY_TEXT) else None


FITS = (
    Fit("training.allocated_ratio", "ratio", _allocated, conformal=True),
    *(Fit(f"training.cached.{kind}", "ratio", _cached(kind), conformal=True) for kind in _CLASSES),
)
