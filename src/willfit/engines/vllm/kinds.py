"""Which devices vLLM takes alike, but for the room of its cache."""

from __future__ import annotations

from willfit.engines.vllm.settings import MUCH, VERY_MUCH, named_apart
from willfit.hardware.device import Device


def kind_of(device: Device) -> Device:
    """The device with nothing but what vLLM's rules look at; those that give the same one are profiled alike."""
    usable = device.usable_bytes or 0
    return Device(
        named_apart(device),
        vendor=device.vendor,
        arch=device.arch,
        compute_capability=device.compute_capability,
        usable_bytes=next((least for least in (VERY_MUCH, MUCH) if usable >= least), 0),
        interconnect=device.interconnect,
        unified_memory=device.unified_memory,
    )
