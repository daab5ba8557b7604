"""The GPU of a Mac: its memory is RAM up to a limit that Metal sets."""

from __future__ import annotations

import sys
from dataclasses import replace

from willfit.errors import BadInput
from willfit.hardware.device import Device
from willfit.hardware.host import HostMemory
from willfit.hardware.probe import DetectedDevice, Runner, run_command
from willfit.hardware.table import find_device
from willfit.hardware.usable import apple_working_set
from willfit.quantities import GIB, MIB


def detect_apple(
    run: Runner = run_command, platform: str = sys.platform, host: HostMemory | None = None
) -> tuple[DetectedDevice, ...]:
    """The GPU of this Mac, if it is one with Apple silicon.

    Parameters
    ----------
    run
        Runs a command and returns its output, empty on failure.
    platform
        As `sys.platform`.
    host
        The host's memory, which bounds what is free.
    """
    if platform != "darwin":
        return ()
    chip = run(["sysctl", "-n", "machdep.cpu.brand_string"]).strip()
    ram = run(["sysctl", "-n", "hw.memsize"]).strip()
    if not chip.startswith("Apple") or not ram.isdecimal():
        return ()
    total = int(ram)
    usable, why = apple_working_set(total)
    limit = run(["sysctl", "-n", "iogpu.wired_limit_mb"]).strip()
    if limit.isdecimal() and int(limit):  # 0: not set, the default holds
        usable, why = min(int(limit) * MIB, total), "iogpu.wired_limit_mb"
    try:
        device = find_device(f"{chip} {total // GIB}g")
    except BadInput:
        device = Device(chip, "Apple", unified_memory=True)
    device = replace(device, reported_bytes=total, usable_bytes=usable, usable_source=why)
    free = min(usable, host.available_bytes) if host else usable
    return (DetectedDevice(device, usable, free, 0),)
