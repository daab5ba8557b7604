"""What is in use on a card before weights are loaded, where logs tell."""

from __future__ import annotations

from willfit.hardware.table import find_device
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit


def _before_weights(case: Case) -> float | None:
    """What the card lacks before loading, or what a log's first reading shows beyond the weights."""
    gpu = case.fields.get("gpu")
    if case.engine not in ("vllm", "sglang") or not isinstance(gpu, str):
        return None
    device = find_device(gpu)
    if device.unified_memory or device.vendor != "NVIDIA" or device.compute_capability == "8.0":
        return None
    measured = case.measured
    initial, weights = measured.get("initial_memory_usage_gib"), measured.get("weights_gib")
    if initial is not None and weights is not None:
        return float(initial - weights) * GIB
    total = measured.get("gpu_total_gib")
    seen = total * GIB if total is not None else device.usable_bytes
    free = measured.get("avail_before_weights_gib")
    return None if free is None or seen is None else float(seen) - float(free) * GIB


FITS = (Fit("cuda.context.other", "bytes", _before_weights),)
