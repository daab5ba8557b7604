"""What engines ask of a device before they start: its compute capability, as the number that they compare."""

from __future__ import annotations

import re

from willfit.hardware.device import Device

#: The generation that a capability is the first of.
_GENERATIONS = {
    60: "Pascal",
    70: "Volta",
    75: "Turing",
    80: "Ampere",
    89: "Ada",
    90: "Hopper",
    100: "Blackwell",
}

_CUDA = re.compile(r"^(\d+)\.(\d)$")
_HIP = re.compile(r"^gfx(\d{1,2})([0-9a-f])[0-9a-f]$")


def capability(device: Device) -> int | None:
    """The compute capability as a number; None for a device that has none, or of which it is not known.

    75 for 7.5. HIP reads AMD's the same way from the name of an architecture (`hipDeviceProp_t.major` and `minor`):
    94 for gfx942, 110 for gfx1100.
    """
    text = device.compute_capability
    found = _CUDA.match(text) or (_HIP.match(text) if device.vendor == "AMD" else None)
    return 10 * int(found[1]) + int(found[2], 16) if found else None


def is_below(device: Device, minimum: int) -> bool:
    """Whether a device is known to have a lower compute capability."""
    found = capability(device)
    return found is not None and found < minimum


def capability_named(number: int) -> str:
    """A minimum in words: `compute capability 8.0 (Ampere)`."""
    generation = _GENERATIONS.get(number)
    return f"compute capability {number // 10}.{number % 10}" + (f" ({generation})" if generation else "")
