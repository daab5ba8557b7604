"""How fast a device does its parts under an engine: its figures times the shares that measurements show.

A kernel is held up by the device's memory, or by how many loads its multiprocessors keep under way at once (Little's
law: bytes in flight over latency): a card with few of them does not reach its bandwidth with one user. The latter
depends on how a format is unpacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

from willfit.calibration import constant
from willfit.hardware.device import Device
from willfit.hardware.processors import ProcessorKind
from willfit.hardware.table import all_devices
from willfit.speed.habits import Habits
from willfit.speed.work import KINDS, Kind

_TERA, _GIGA = 1e12, 1e9

#: Constants by kind; for a kind without one, that of the kind that its kernels are most like.
_PER_MULTIPROCESSOR: dict[Kind, tuple[str, str]] = {
    "plain": ("speed.multiprocessor.plain", ""),
    "fp8": ("speed.multiprocessor.fp8", "speed.multiprocessor.plain"),
    "int8": ("speed.multiprocessor.int8", "speed.multiprocessor.plain"),
    "int4": ("speed.multiprocessor.int4", "speed.multiprocessor.plain"),
    "awq": ("speed.multiprocessor.int4", "speed.multiprocessor.plain"),
    "fp4": ("speed.multiprocessor.int4", "speed.multiprocessor.plain"),
}
_OF_PEAK: dict[Kind, tuple[str, str]] = {
    "plain": ("speed.products_share.plain", ""),
    "fp8": ("speed.products_share.fp8", "speed.products_share.plain"),
    "int8": ("speed.products_share.unpacked", "speed.products_share.plain"),
    "int4": ("speed.products_share.unpacked", "speed.products_share.plain"),
    "awq": ("speed.products_share.unpacked", "speed.products_share.plain"),
    "fp4": ("speed.products_share.unpacked", "speed.products_share.plain"),
}

#: A host's memory and its products where layers run there: two channels of DDR5-4800 and AVX2, eight channels and the
#: wider units of servers, and what ARM servers have. Gigabytes and 10**12 operations per second.
_HOSTS: dict[ProcessorKind, tuple[float, float]] = {
    "plain": (25.0, 0.2), "avx2": (77.0, 1.0), "avx512": (205.0, 3.0), "amx": (307.0, 20.0), "dotprod": (205.0, 2.0),
    "i8mm": (205.0, 4.0),
}  # fmt: skip

#: PCI Express x16 by generation, one way, in 10**9 bytes per second: 128b/130b coding, before packets.
_PCIE_GBS = {3: 15.75, 4: 31.5, 5: 63.0, 6: 121.0}
_USUAL_PCIE = 4


@dataclass(frozen=True, slots=True)
class Rates:
    """What one device reaches, in bytes, operations and seconds.

    Attributes
    ----------
    bandwidth
        Bytes per second of weights at most.
    read
        Bytes per second of weights by kind: at most `bandwidth`, and what loads under way allow.
    cache_bandwidth
        Bytes per second of a cache.
    products
        Operations per second of matrix products, by kind.
    attention
        Operations per second of attention over a prompt.
    experts
        By how much experts' kernels take longer than others for the same bytes and operations.
    layer_s
        Of a layer beside its products and its attention: norms, rotary embeddings, gaps between kernels.
    launch_s
        Of Python to launch one layer, which the device waits for if it is faster; 0 where graphs are always replayed.
    step_s
        Between two steps.
    expert_launch_s
        Of a kernel of a single expert; 0 where one kernel runs all.
    expert_loop_s
        Of Python to run one expert; 0 where it does not.
    link
        Bytes per second to a peer, one way.
    message_s
        Of a collective operation between ranks, whatever its size.
    """

    bandwidth: float
    read: Mapping[Kind, float]
    cache_bandwidth: float
    products: Mapping[Kind, float]
    attention: float
    experts: float
    layer_s: float
    launch_s: float
    step_s: float
    expert_launch_s: float
    expert_loop_s: float
    link: float
    message_s: float


def rates_of(device: Device, habits: Habits) -> Rates | None:
    """What a device reaches under an engine; None if its bandwidth or its rates are not known.

    Parameters
    ----------
    device
        An accelerator.
    habits
        Of the engine.
    """
    device = with_rates(device)
    peak = peak_flops(device)
    if device.bandwidth_gbs is None or peak is None:
        return None
    bandwidth = device.bandwidth_gbs * _GIGA
    units = device.multiprocessors
    in_flight: dict[Kind, float] = {}
    products: dict[Kind, float] = {}
    for kind in KINDS:
        in_flight[kind] = units * _value(*_PER_MULTIPROCESSOR[kind]) if units else inf
        products[kind] = _value(*_OF_PEAK[kind]) * (peak_flops(device, kind) or peak)
    if habits.awq_kernel:
        in_flight["awq"] /= constant("speed.awq_ratio").value
    launches = habits.captured_tokens or not habits.graphs
    most = bandwidth * _value("speed.bandwidth_share")
    return Rates(
        bandwidth=most,
        read={kind: min(most, flight) for kind, flight in in_flight.items()},
        cache_bandwidth=min(
            bandwidth * _value("speed.cache_share", "speed.bandwidth_share"), in_flight["plain"]
        ),
        products=products,
        attention=_value("speed.attention_share", "speed.products_share.plain") * peak,
        experts=_value(
            "speed.experts_ratio" if habits.tuned_experts else "speed.experts_ratio.untuned",
            "speed.experts_ratio",
        ),
        layer_s=constant("speed.layer.graph").value,
        launch_s=_value(habits.launch, "speed.layer.eager") if launches else 0.0,
        step_s=constant(_STEPS[habits.loop]).value,
        expert_launch_s=constant("speed.expert_launch").value if habits.launches_experts else 0.0,
        expert_loop_s=_value("speed.expert_loop") if habits.loops_experts else 0.0,
        link=link_bytes(device),
        message_s=constant("speed.message").value,
    )


_STEPS = {
    "synchronous": "speed.step.synchronous",
    "overlapped": "speed.step.overlapped",
    "native": "speed.step.overlapped",
}


def host_rates(processor: ProcessorKind, habits: Habits) -> Rates:
    """What a host's processor reaches with the layers that it is given.

    Its memory's bandwidth is that which such processors usually come with: nothing in a name tells how many channels
    are filled.
    """
    memory, tera = _HOSTS[processor]
    bandwidth = memory * _GIGA * _value("speed.bandwidth_share")
    products = tera * _TERA * _value("speed.products_share.plain")
    return Rates(
        bandwidth=bandwidth,
        read=dict.fromkeys(KINDS, bandwidth),
        cache_bandwidth=bandwidth,
        products=dict.fromkeys(KINDS, products),
        attention=products,
        experts=1.0,
        layer_s=_value("speed.layer.graph"),
        launch_s=0.0,
        step_s=_value(_STEPS[habits.loop]),
        expert_launch_s=0.0,
        expert_loop_s=0.0,
        link=_PCIE_GBS[_USUAL_PCIE] * _GIGA,
        message_s=_value("speed.message"),
    )


def peak_flops(device: Device, kind: Kind = "plain") -> float | None:
    """Dense peak rate in operations per second for products of a kind; None if the device's rates are not known.

    Weights that are unpacked on the way are multiplied in 16 bits, and so are 8-bit floats where a device has no
    products of these.
    """
    own = {"fp8": device.fp8_tflops, "fp4": device.fp4_tflops}.get(kind)
    half = max((rate for rate in (device.bf16_tflops, device.fp16_tflops) if rate), default=None)
    rate = own or half or device.fp32_tflops
    return None if rate is None else rate * _TERA


def link_bytes(device: Device) -> float:
    """Bytes per second from a device to a peer, one way: its own link, else PCI Express."""
    if device.interconnect_gbs:
        return device.interconnect_gbs * _GIGA / 2
    return pcie_bytes(device)


def pcie_bytes(device: Device) -> float:
    """Bytes per second over PCI Express, one way."""
    generation = device.pcie_gen or _USUAL_PCIE
    return _PCIE_GBS[min(max(generation, min(_PCIE_GBS)), max(_PCIE_GBS))] * _GIGA


def with_rates(device: Device) -> Device:
    """The device with the figures of a card of its kind, where its own are not published.

    That is the first of the table that begins with the same word, has its own socket and is of the same generation.
    """
    if device.bandwidth_gbs is not None and peak_flops(device) is not None:
        return device
    first = f"{device.name.split(' ')[0]} SXM"
    alike = [one for one in all_devices() if one.name.startswith(first) and one.arch == device.arch]
    known = next(
        (one for one in alike if one.bandwidth_gbs is not None and peak_flops(one) is not None), None
    )
    if known is None:
        return device
    return replace(
        device,
        bandwidth_gbs=device.bandwidth_gbs or known.bandwidth_gbs,
        bf16_tflops=device.bf16_tflops or known.bf16_tflops,
        fp16_tflops=device.fp16_tflops or known.fp16_tflops,
        fp8_tflops=device.fp8_tflops or known.fp8_tflops,
        fp32_tflops=device.fp32_tflops or known.fp32_tflops,
    )


def _value(name: str, general: str = "") -> float:
    return constant(name, general).value
