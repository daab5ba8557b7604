"""Which devices vLLM takes alike, but for the room of its cache."""

from __future__ import annotations

from willfit.engines.vllm.settings import MUCH, VERY_MUCH, named_apart
from willfit.hardware.device import Device

#: Compute capabilities that rules tell from others of their generation; of the rest any one stands for all.
_APART = frozenset(("7.5", "8.0", "8.9", "9.0"))
_OTHERS = {8: "8.6"}

#: From this generation on a link between cards changes what libraries take.
_LINKED = 9


def kind_of(device: Device) -> Device:
    """The device with nothing but what vLLM's rules look at; those that give the same one are profiled alike."""
    usable = device.usable_bytes or 0
    major, _, minor = device.compute_capability.partition(".")
    generation = int(major) if major.isdigit() and minor.isdigit() else 0
    capability = device.compute_capability if generation or device.vendor == "AMD" else ""
    if generation and capability not in _APART:
        capability = _OTHERS.get(generation, f"{generation}.{0 if generation < 8 else 9}")
    return Device(
        named_apart(device),
        vendor=device.vendor,
        arch="GCN" if device.arch.startswith("GCN") else "",
        compute_capability=capability,
        usable_bytes=next((least for least in (VERY_MUCH, MUCH) if usable >= least), 0),
        interconnect=device.interconnect if generation >= _LINKED else "",
        unified_memory=device.unified_memory,
    )
