"""What a process of llama.cpp takes of a device beside its buffers: the driver's context and its own kernels."""

from __future__ import annotations

from willfit.calibration import Constant, constant
from willfit.engines.llama_cpp.settings import Backend
from willfit.estimate import Term, between, exact
from willfit.hardware.device import Device

#: Backends whose contexts are those of CUDA's runtime or of one that is built like it.
_LIKE_CUDA = ("cuda", "rocm")


def device_context(device: Device, backend: Backend) -> Term:
    """The context on a device: smaller than that of programs that load torch's kernels.

    Parameters
    ----------
    backend
        By which llama.cpp runs on it; none is established but CUDA's, ROCm's and Vulkan's.
    """
    if device.is_cpu:
        return exact("context", 0, "no context on a processor")
    if backend == "metal":
        return exact("context", 0, "no context beside the process")
    found = context_constant(backend)
    low, size, high = int(found.low), int(found.value), int(found.high)
    if backend in _LIKE_CUDA or backend == "vulkan":
        return between("context", size, low, high, f"{size} B of the driver's context", found.reference)
    formula = f"not established for {backend}: at most what CUDA takes"
    return between("context", 0, 0, high, formula, found.reference)


def context_constant(backend: Backend) -> Constant:
    """The size of a context."""
    return constant(f"llama_cpp.context.{'vulkan' if backend == 'vulkan' else 'cuda'}")
