"""What transformers makes of a device: which quantizations it refuses there, and which it expands to 16 bits.

`quantizers/*.py: validate_environment`, read in the released wheels 4.46 to 5.23.
"""

from __future__ import annotations

from willfit.engines.base import Machine, Subject
from willfit.engines.capability import is_below
from willfit.engines.needed_capability import Minima, Steps, always, lowest, since
from willfit.engines.stored import method_of
from willfit.engines.versions import parse_version
from willfit.hardware.device import Device

#: Below, loading ends with an error.
MINIMA = Minima(
    "transformers",
    # It needs torch 2.2, whose libraries have no code for Kepler.
    own=since(((5, 0), 50)),
    methods={"fbgemm_fp8": always(90), "fp8": since(((4, 49), 90), ((4, 51), 89), ((5, 0), 0))},
)

#: Below, the weights are expanded (`quantization_config.dequantize`).
_EXPANDED: dict[str, Steps] = {
    "fp8": since(((5, 0), 89)),
    "mxfp4": since(((4, 55), 90), ((4, 55, 2), 75)),
}


def device_refusal(subject: Subject, machine: Machine, version: str) -> str:
    """Why transformers does not load a checkpoint on the devices; empty if it does. It asks the first one alone."""
    return MINIMA.refusal(subject, parse_version(version), machine.devices[0]) if machine.devices else ""


def runs_dequantized(subject: Subject, device: Device, version: str) -> bool:
    """Whether the weights are expanded to 16 bits because the device lacks the kernels."""
    steps = _EXPANDED.get(method_of(subject))
    return steps is not None and is_below(device, lowest(steps, parse_version(version)))
