"""Which backend runs a device."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.engines.llama_cpp.backends import cann, hexagon, opencl
from willfit.engines.llama_cpp.backends.cann import Cann
from willfit.engines.llama_cpp.backends.cuda import Cuda
from willfit.engines.llama_cpp.backends.hexagon import Hexagon
from willfit.engines.llama_cpp.backends.metal import Metal
from willfit.engines.llama_cpp.backends.opencl import OpenCl
from willfit.engines.llama_cpp.backends.processor import Processor
from willfit.engines.llama_cpp.backends.sycl import Sycl
from willfit.engines.llama_cpp.backends.vulkan import BLOCK_BYTES, Vulkan, host_alignment
from willfit.engines.llama_cpp.backends.vulkan_order import Order
from willfit.engines.llama_cpp.era import Era
from willfit.engines.llama_cpp.graph.scheduler import Backend
from willfit.engines.llama_cpp.settings import Backend as BackendName
from willfit.hardware.device import Device

#: The backend that people build for a vendor's devices.
_OF_VENDOR: dict[str, BackendName] = {
    "NVIDIA": "cuda",
    "AMD": "rocm",
    "Apple": "metal",
    "Intel": "vulkan",
    "Huawei": "cann",
    "Qualcomm": "opencl",
    "": "cuda",
}

#: The Ascend that its backend is built for in particular.
_SMALL_ASCEND = "ascend310p"

#: Pinned host memory of a backend's first device, by the backend's name; Metal and OpenCL have none.
_HOST_BUFFERS = {
    "cuda": "CUDA_Host",
    "rocm": "ROCm_Host",
    "vulkan": "Vulkan_Host",
    "sycl": "SYCL_Host",
    "cann": "CANN_Host",
}


def backend_name(devices: Sequence[Device], named: BackendName | None) -> BackendName:
    """The backend that runs these devices; `cpu` if there are none."""
    if not devices:
        return "cpu"
    return named or _OF_VENDOR.get(devices[0].vendor, "vulkan")


def host_buffers(name: BackendName, era: Era) -> str:
    """What the pinned host memory of a backend is called; empty if it has none."""
    if name == "cann" and era.cann_step < cann.Step.PINNED:
        return ""
    return _HOST_BUFFERS.get(name, "")


def backends_of(
    devices: Sequence[Device], name: BackendName, era: Era, fusion: bool = True
) -> tuple[Backend, ...]:
    """The devices' backends in order, and the processor's behind them."""
    found: list[Backend] = []
    for index, device in enumerate(devices):
        if name in ("cuda", "rocm"):
            word = "CUDA" if name == "cuda" else "ROCm"
            found.append(
                Cuda(
                    index,
                    word,
                    _arch(device),
                    era.copies_in_graph,
                    fusion and era.keeps_expert_sums,
                    fusion and era.keeps_expert_choices,
                    era.takes_over,
                    era.chooses_latents,
                    era.multiplies,
                    era.multiplies_halves,
                    era.convolves_three,
                )
            )
        elif name == "metal":
            found.append(
                Metal(
                    index,
                    era.metal_offloads,
                    era.metal_reorders,
                    era.metal_looks_far,
                    era.metal_fuses,
                    era.metal_copies_cache,
                    era.metal_workspaces,
                )
            )
        elif name == "cann":
            found.append(Cann(index, cann.Step(era.cann_step), device.compute_capability == _SMALL_ASCEND))
        elif name == "hexagon":
            found.append(Hexagon(index, hexagon.Step(era.hexagon_step)))
        elif name == "opencl":
            found.append(OpenCl(index, opencl.Step(era.opencl_step)))
        elif name == "sycl":
            found.append(Sycl(index, era.sycl_attends, era.sycl_workspaces))
        else:
            found.append(
                Vulkan(index, Order(era.vulkan_order), era.vulkan_keeps_choices, era.vulkan_counts_rows)
            )
    if name == "vulkan":
        alignment = host_alignment(devices[0].vendor)
        return (*found, Processor(host_buffers(name, era), alignment, largest_buffer=BLOCK_BYTES))
    sees = any(isinstance(one, Hexagon) and one.seen_by_host for one in found)
    return (*found, Processor(host_buffers(name, era) or "CPU", sees_devices=sees))


def _arch(device: Device) -> int | str:
    """Compute capability as 86 for 8.6, or AMD's name; an Ampere if it is not known."""
    text = device.compute_capability
    if text.startswith("gfx"):
        return text
    major, _, minor = text.partition(".")
    return int(major) * 10 + int(minor or 0) if major.isdigit() else 86
