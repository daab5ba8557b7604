"""What a process takes of a device before it allocates anything: the driver's context and its kernels."""

from __future__ import annotations

from willfit.calibration import Constant, constant
from willfit.estimate import Term, between, exact
from willfit.hardware.device import Device

#: The cards that most measurements of a context were made on: data-center Ampere.
_WELL_MEASURED = "8.0"


def context_constant(device: Device) -> Constant:
    """The size of a CUDA context; what other cards than the measured ones show spreads wider."""
    measured = device.compute_capability == _WELL_MEASURED
    return constant("cuda.context" if measured else "cuda.context.other")


def context_term(device: Device) -> Term:
    """The context on a device: nothing on a processor, not established for other vendors than NVIDIA."""
    if device.is_cpu:
        return exact("context", 0, "no context on a processor")
    context = context_constant(device)
    low, size, high = int(context.low), int(context.value), int(context.high)
    if device.vendor not in ("NVIDIA", ""):
        formula = f"not established for {device.vendor}: at most what CUDA takes"
        return between("context", 0, 0, high, formula, context.reference)
    return between("context", size, low, high, f"{size} B of the driver's context", context.reference)
