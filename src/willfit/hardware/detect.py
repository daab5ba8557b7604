"""What this machine has, asked of its drivers. A tool that is absent, broken or slow counts as no device.

Everything that touches the machine is a parameter of the function for each vendor, with the real thing as
its default: the NVML module, the runner of commands, the root of `/sys`, the environment.
"""

from __future__ import annotations

from willfit.hardware.amd import detect_amd
from willfit.hardware.apple import detect_apple
from willfit.hardware.host import HostMemory, detect_host
from willfit.hardware.nvidia import detect_nvidia
from willfit.hardware.probe import TIMEOUT_SECONDS, DetectedDevice, within

__all__ = ["DetectedDevice", "HostMemory", "detect_devices", "detect_host"]


def detect_devices() -> tuple[DetectedDevice, ...]:
    """The accelerators of this machine: NVIDIA, AMD and Apple, in this order. Never raises."""
    host = detect_host()
    none: tuple[DetectedDevice, ...] = ()
    nvidia = within(TIMEOUT_SECONDS, lambda: detect_nvidia(host=host), none)
    amd = within(TIMEOUT_SECONDS, lambda: detect_amd(host=host), none)
    apple = within(TIMEOUT_SECONDS, lambda: detect_apple(host=host), none)
    return (*nvidia, *amd, *apple)
