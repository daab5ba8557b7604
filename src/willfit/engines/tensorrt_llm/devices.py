"""Why TensorRT-LLM would not start on a device because of what the device is.

`docs/source/reference/support-matrix.md` (hardware; the release for TensorRT 10.9) and
`docs/source/features/quantization.md` (hardware support matrix, 1.x).
"""

from __future__ import annotations

from willfit.engines.base import Machine, Subject
from willfit.engines.needed_capability import Minima, Steps, always, since
from willfit.engines.versions import parse_version

_KERNELS: dict[str, Steps] = {"fp8": always(89), "fp8 block": always(89), "nvfp4": always(100)}

MINIMA = Minima("TensorRT-LLM", own=since(((0, 19), 80)), kernels=_KERNELS, experts=_KERNELS)


def device_refusal(subject: Subject, machine: Machine, version: str) -> str:
    """Why a version does not run a checkpoint on the devices; empty if it does."""
    for device in machine.devices:
        if device.is_cpu or device.vendor not in ("NVIDIA", ""):
            return "TensorRT-LLM runs on NVIDIA's cards only"
        if refused := MINIMA.refusal(subject, parse_version(version), device):
            return refused
    return ""
