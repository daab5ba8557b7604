"""NVIDIA cards and MIG slices of this machine, through NVML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from willfit.hardware.device import Device
from willfit.hardware.host import HostMemory
from willfit.hardware.probe import DetectedDevice, on_host, selected
from willfit.hardware.table import identify


def detect_nvidia(
    nvml: Any = None, host: HostMemory | None = None, environ: Mapping[str, str] | None = None
) -> tuple[DetectedDevice, ...]:
    """NVIDIA devices that CUDA_VISIBLE_DEVICES leaves visible; a divided card counts as its slices.

    Parameters
    ----------
    nvml
        A module with NVML's functions; `pynvml` if None.
    host
        The host's memory, which is the device's own on GB10, Thor and Jetson: NVML gives no figure there.
    environ
        The environment; this process's if None.

    Returns
    -------
    tuple[DetectedDevice, ...]
        Empty without a driver. `index` is NVML's, in the order of the PCI bus.
    """
    try:
        if nvml is None:
            nvml = import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # no package, no driver, no permission: there is nothing to find
        return ()
    found: list[DetectedDevice] = []
    uuids: list[str] = []
    try:
        for index in range(_asked(nvml.nvmlDeviceGetCount) or 0):
            card = _asked(nvml.nvmlDeviceGetHandleByIndex, index)
            for handle in _slices(nvml, card) or [card]:
                device = _detected(nvml, handle, index, host)
                if device is not None:
                    found.append(device)
                    uuids.append(_text(_asked(nvml.nvmlDeviceGetUUID, handle)))
    finally:
        _asked(nvml.nvmlShutdown)
    return selected(found, uuids, ("CUDA_VISIBLE_DEVICES",), environ)


def _slices(nvml: Any, card: Any) -> list[Any]:
    """Handles of the slices of a card in MIG mode, else none."""
    mode = _asked(nvml.nvmlDeviceGetMigMode, card)
    if not mode or not mode[0]:
        return []
    slots = range(_asked(nvml.nvmlDeviceGetMaxMigDeviceCount, card) or 0)
    handles = [_asked(nvml.nvmlDeviceGetMigDeviceHandleByIndex, card, slot) for slot in slots]
    return [handle for handle in handles if handle is not None]


def _detected(nvml: Any, handle: Any, index: int, host: HostMemory | None) -> DetectedDevice | None:
    name = _text(_asked(nvml.nvmlDeviceGetName, handle))
    if not name:
        return None
    memory = _asked(nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2)
    reserved = int(memory.reserved) if memory is not None else None
    memory = memory or _asked(nvml.nvmlDeviceGetMemoryInfo, handle)
    total = int(memory.total) if memory is not None else 0
    known = identify(name, total)
    device = known or Device(name, "NVIDIA", compute_capability=_capability(nvml, handle))
    if not total or device.unified_memory:
        return on_host(replace(device, unified_memory=True), host, index)
    if reserved is not None:
        usable, why = total - reserved, "NVML: total less what the driver reserves"
    else:
        usable, why = min(device.usable_bytes or total, total), device.usable_source or "NVML: total"
    device = replace(device, reported_bytes=total, usable_bytes=usable, usable_source=why, assumption="")
    return DetectedDevice(device, usable, min(int(memory.free), usable), index)


def _capability(nvml: Any, handle: Any) -> str:
    pair = _asked(nvml.nvmlDeviceGetCudaComputeCapability, handle)
    return f"{pair[0]}.{pair[1]}" if pair else ""


def _asked(function: Any, *arguments: Any) -> Any:
    """What NVML answers, None where it has no answer (not supported, card lost, driver too old)."""
    try:
        return function(*arguments)
    except Exception:  # pynvml raises its own errors, and AttributeError for a function that a driver lacks
        return None


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
