"""Which backend runs a device."""

from __future__ import annotations

from collections.abc import Sequence

from willfit.engines.llama_cpp.backends.cuda import Cuda
from willfit.engines.llama_cpp.backends.metal import Metal
from willfit.engines.llama_cpp.backends.processor import Processor
from willfit.engines.llama_cpp.backends.sycl import Sycl
from willfit.engines.llama_cpp.backends.vulkan import BLOCK_BYTES, Vulkan, host_alignment
from willfit.engines.llama_cpp.backends.vulkan_order import Order
from willfit.engines.llama_cpp.eras import Era
from willfit.engines.llama_cpp.graph.scheduler import Backend
from willfit.engines.llama_cpp.settings import Backend as BackendName
from willfit.hardware.device import Device

#: The backend that people build for a vendor's devices.
_OF_VENDOR: dict[str, BackendName] = {
    "NVIDIA": "cuda",
    "AMD": "rocm",
    "Apple": "metal",
    "Intel": "vulkan",
    "": "cuda",
}

#: Pinned host memory of a backend's first device, by the backend's name; Metal has none.
_HOST_BUFFERS = {"cuda": "CUDA_Host", "rocm": "ROCm_Host", "vulkan": "Vulkan_Host", "sycl": "SYCL_Host"}


def backend_name(devices: Sequence[Device], named: BackendName | None) -> BackendName:
    """The backend that runs these devices; `cpu` if there are none."""
    if not devices:
        return "cpu"
    return named or _OF_VENDOR.get(devices[0].vendor, "vulkan")


def host_buffers(name: BackendName) -> str:
    """What the pinned host memory of a backend is called; empty if it has none."""
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
                    era.metal_reorders,
                    era.metal_looks_far,
                    era.metal_fuses,
                    era.metal_copies_cache,
                    era.metal_workspaces,
                )
            )
        elif name == "sycl":
            found.append(Sycl(index, era.sycl_attends, era.sycl_workspaces))
        else:
            found.append(
                Vulkan(index, Order(era.vulkan_order), era.vulkan_keeps_choices, era.vulkan_counts_rows)
            )
    if name == "vulkan":
        alignment = host_alignment(devices[0].vendor)
        return (*found, Processor(host_buffers(name), alignment, largest_buffer=BLOCK_BYTES))
    return (*found, Processor(host_buffers(name) or "CPU"))


def _arch(device: Device) -> int | str:
    """Compute capability as 86 for 8.6, or AMD's name; an Ampere if it is not known."""
    text = device.compute_capability
    if text.startswith("gfx"):
        return text
    major, _, minor = text.partition(".")
    return int(major) * 10 + int(minor or 0) if major.isdigit() else 86
