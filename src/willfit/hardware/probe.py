"""What the detection of each vendor shares: the record it returns, and bounded ways to ask the machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from willfit.hardware.device import Device
from willfit.hardware.host import HostMemory

#: Seconds that one command or one driver may take. A cold NVML start takes one to three.
TIMEOUT_SECONDS = 10.0

#: Runs a command and returns what it printed, empty if it failed.
Runner = Callable[[Sequence[str]], str]

_T = TypeVar("_T")

_UUIDS = ("GPU-", "MIG-")


@dataclass(frozen=True, slots=True)
class DetectedDevice:
    """A device of this machine.

    Attributes
    ----------
    device
        Its record, with the memory that this machine's driver reports.
    total_bytes, free_bytes
        What programs can allocate in all, and what of it is free now.
    index
        Its number as the driver's tool counts; slices of one card share it.
    """

    device: Device
    total_bytes: int
    free_bytes: int
    index: int


def run_command(command: Sequence[str]) -> str:
    """What a command prints; empty if it is absent, fails or takes too long."""
    import subprocess

    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def within(seconds: float, work: Callable[[], _T], otherwise: _T) -> _T:
    """The result of `work`, or `otherwise` if it fails or takes longer: a wedged driver never returns."""
    import threading

    results: list[_T] = []

    def attempt() -> None:
        try:
            results.append(work())
        except Exception:  # a driver library may raise anything; detection must not
            return

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else otherwise


def selected(
    found: Sequence[DetectedDevice],
    uuids: Sequence[str],
    variables: Sequence[str],
    environ: Mapping[str, str] | None = None,
) -> tuple[DetectedDevice, ...]:
    """The devices that an environment variable such as CUDA_VISIBLE_DEVICES leaves, in its order.

    Parameters
    ----------
    found, uuids
        The devices and the UUID of each (empty if it has none).
    variables
        Names of the variables; the first that is set counts.
    environ
        The environment; this process's if None.

    Returns
    -------
    tuple[DetectedDevice, ...]
        As the CUDA runtime reads the variable, what stands after an entry that names no device is hidden.
    """
    environ = os.environ if environ is None else environ
    asked = next((environ[variable] for variable in variables if variable in environ), None)
    if asked is None:
        return tuple(found)
    chosen: list[DetectedDevice] = []
    for entry in (part.strip() for part in asked.split(",")):
        named = [
            device
            for device, uuid in zip(found, uuids, strict=True)
            if (entry.isdecimal() and device.index == int(entry))
            or (entry[:4] in _UUIDS and uuid.startswith(entry))
        ]
        if not named:
            break
        chosen += named
    return tuple(chosen)


def on_host(device: Device, host: HostMemory | None, index: int) -> DetectedDevice | None:
    """A device whose memory is the host's RAM; None if that is not known."""
    if host is None:
        return None
    usable = min(device.usable_bytes or host.total_bytes, host.total_bytes)
    return DetectedDevice(device, usable, min(host.available_bytes, usable), index)
