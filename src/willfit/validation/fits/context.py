"""What is in use on a card before weights are loaded, where logs tell."""

from __future__ import annotations

from willfit.engines.vllm.eras import era_for
from willfit.hardware.device import Device
from willfit.hardware.table import find_device
from willfit.quantities import GIB
from willfit.validation.cases import Case
from willfit.validation.fits.base import Fit
from willfit.validation.predictors.vllm import settings_of

#: No context is known to be larger: where more is in use, something else uses the card as well.
_LARGEST = GIB


def _before_weights(case: Case) -> float | None:
    """A process's context: what a log's first reading shows beyond the weights, or what its card lacks."""
    gpu = case.fields.get("gpu")
    if case.engine not in ("vllm", "sglang") or not isinstance(gpu, str) or _with_nccl(case):
        return None
    device = find_device(gpu)
    if device.unified_memory or device.vendor != "NVIDIA" or device.compute_capability == "8.0":
        return None
    size = _in_use(case, device)
    return size if size is not None and 0 < size < _LARGEST else None


def _with_nccl(case: Case) -> bool:
    """Whether the reading comes after NCCL's start."""
    if int(case.settings.get("tensor_parallel") or 1) * int(case.settings.get("pipeline_parallel") or 1) == 1:
        return False
    if case.engine != "vllm":
        return True
    settings = settings_of(case)
    return not era_for(settings.version, settings.generation).nccl_inside


def _in_use(case: Case, device: Device) -> float | None:
    measured = case.measured
    initial, weights = measured.get("initial_memory_usage_gib"), measured.get("weights_gib")
    if initial is not None and weights is not None:
        return float(initial - weights) * GIB
    total, free = measured.get("gpu_total_gib"), measured.get("avail_before_weights_gib")
    seen = total * GIB if total is not None else device.usable_bytes
    return None if free is None or seen is None else float(seen) - float(free) * GIB


FITS = (Fit("cuda.context.other", "bytes", _before_weights),)
