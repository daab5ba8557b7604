"""What a device reaches while it trains: its figures times the shares that published runs show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from willfit.calibration import constant
from willfit.hardware.device import Device
from willfit.speed.rates import link_bytes, pcie_bytes, peak_flops, with_rates

_TERA, _GIGA = 1e12, 1e9

#: From this compute capability on products of whole warp groups reach the peak; the flash attention that most trainers
#: run has those of single warps (Shah et al. 2024, section 1: FlashAttention-2 reaches 35 % on H100).
_WARP_GROUPS = 9.0


@dataclass(frozen=True, slots=True)
class TrainingRates:
    """What one device reaches.

    Attributes
    ----------
    products
        Operations per second: `half` in 16 bits, `fp32`, `narrow` in 8 or 4 bits.
    attention
        Operations per second.
    bandwidth
        Bytes per second, as the table has it: what is reached is in the next two.
    flow_eager, flow_compiled
        How often memory is read or written for each value that passes between kernels.
    launch_s
        Of Python to launch one layer.
    link, pcie
        Bytes per second, one way.
    """

    products: Mapping[str, float]
    attention: float
    bandwidth: float
    flow_eager: float
    flow_compiled: float
    launch_s: float
    link: float
    pcie: float


def training_rates_of(device: Device) -> TrainingRates | None:
    """What a device reaches; None if its figures are not known."""
    published = peak_flops(device) is not None
    device = with_rates(device)
    half, full = peak_flops(device), device.fp32_tflops
    if half is None or device.bandwidth_gbs is None:
        return None
    slower = 1.0 if published else constant("speed.train.unpublished_ratio").value
    share = constant("speed.train.products_share").value * slower
    narrow = constant("speed.train.products_share.narrow").value * slower
    newer = parse_capability(device.compute_capability) >= _WARP_GROUPS
    attention = constant("speed.train.attention_share" if newer else "speed.attention_share")
    return TrainingRates(
        products={
            "half": share * half,
            "fp32": share * (full * _TERA if full else half),
            "narrow": narrow * (peak_flops(device, "fp8") or half),
        },
        attention=attention.value * slower * half,
        bandwidth=device.bandwidth_gbs * _GIGA,
        flow_eager=constant("speed.train.flow.eager").value,
        flow_compiled=constant("speed.train.flow.compiled").value,
        launch_s=constant("speed.train.layer").value,
        link=link_bytes(device),
        pcie=pcie_bytes(device),
    )


def parse_capability(text: str) -> float:
    """NVIDIA's compute capability as a number; 0 for anything else."""
    try:
        return float(text)
    except ValueError:
        return 0.0
