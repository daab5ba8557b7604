"""Why ExLlamaV3 would not start on a card because of what the card is."""

from __future__ import annotations

from willfit.engines.base import Subject
from willfit.engines.needed_capability import Minima, since
from willfit.engines.versions import Version, parse_version
from willfit.hardware.device import Device

#: Its kernels copy asynchronously and multiply as Ampere does; since 1.5.2 Turing has a way around
#: (`exllamav3_ext/arch.cuh`).
MINIMA = Minima("ExLlamaV3", own=since(((0,), 80), ((1, 5, 2), 75)))

#: Since when it has kernels for AMD (`exllamav3_ext/rocm`).
_ROCM: Version = (1, 6)


def device_refusal(subject: Subject, version: str, device: Device) -> str:
    """Why a version does not run on a card; empty if it does."""
    numbers = parse_version(version)
    if device.vendor == "AMD":
        return (
            ""
            if numbers >= _ROCM
            else f"ExLlamaV3 {version} has no kernels for AMD's cards; 1.6.0 and later have"
        )
    return MINIMA.refusal(subject, numbers, device)
