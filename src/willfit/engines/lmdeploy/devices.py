"""Why LMDeploy would not start on a device because of what the device is."""

from __future__ import annotations

from collections.abc import Iterable

from willfit.engines.base import Subject
from willfit.engines.lmdeploy.settings import Backend
from willfit.engines.needed_capability import Minima, always
from willfit.engines.versions import parse_version
from willfit.hardware.device import Device

#: TurboMind's library has code for Volta and newer (the wheels 0.5.3, 0.14, 0.16 and 0.18). Triton, which the PyTorch
#: engine's kernels are written in, begins there, too, and has no FP8 below Ada (`pytorch/kernels/cuda`).
_TURBOMIND = Minima("LMDeploy", own=always(70))
_PYTORCH = Minima(
    "LMDeploy",
    own=always(70),
    kernels=dict.fromkeys(("fp8", "fp8 block"), always(89)),
    experts=dict.fromkeys(("fp8", "fp8 block"), always(89)),
)


def device_refusal(subject: Subject, backend: Backend, version: str, devices: Iterable[Device]) -> str:
    """Why LMDeploy does not start on the devices; empty if it does."""
    minima, numbers = _TURBOMIND if backend == "turbomind" else _PYTORCH, parse_version(version)
    for device in devices:
        if device.is_cpu or device.vendor not in ("NVIDIA", ""):
            return "of the devices known here, LMDeploy runs on NVIDIA's only"
        if refused := minima.refusal(subject, numbers, device):
            return refused
    return ""
