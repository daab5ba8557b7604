"""What an accelerator is: a record with its memory as sold, as reported and as usable, and its rates."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator as a program sees it: a card with two dies is two devices.

    A figure that is not known is None (or the empty string).

    Attributes
    ----------
    name, vendor, arch, year
        As in the table; `arch` is the vendor's name for the generation.
    compute_capability
        NVIDIA's `8.9`, AMD's `gfx942`, the vendor's own word otherwise.
    marketing_bytes
        The number on the box. Vendors write GB and mean GiB, so 24 GB is 24 * 2**30.
    reported_bytes
        What the driver's tool (`nvidia-smi`, `rocm-smi`) calls total.
    usable_bytes, usable_source
        What a program can allocate when nothing else runs, and in one line where that figure comes from.
    memory_type, bandwidth_gbs
        `GDDR6X`, `HBM3`, ...; 10**9 bytes per second.
    fp32_tflops, tf32_tflops, fp16_tflops, bf16_tflops, fp8_tflops, int8_tops, fp4_tflops
        Dense peak rates in 10**12 operations per second.
    interconnect, interconnect_gbs, pcie_gen
        Link to its peers, 10**9 bytes per second over both directions, and the PCIe generation.
    tdp_w
        Watts.
    unified_memory
        The memory is the host's RAM too, so what the host uses is not there for the device.
    multiprocessors
        NVIDIA's streaming multiprocessors: how many loads can be under way at once depends on them.
    memory_options_bytes
        The sizes it is sold with, where that is a choice under one name.
    notes, source
        What to know about the row, and where its figures come from.
    assumption
        What was taken where the name that was asked for leaves a choice; not part of what the device is.
    """

    name: str
    vendor: str = ""
    arch: str = ""
    year: int | None = None
    compute_capability: str = ""
    marketing_bytes: int | None = None
    reported_bytes: int | None = None
    usable_bytes: int | None = None
    usable_source: str = ""
    memory_type: str = ""
    bandwidth_gbs: float | None = None
    fp32_tflops: float | None = None
    tf32_tflops: float | None = None
    fp16_tflops: float | None = None
    bf16_tflops: float | None = None
    fp8_tflops: float | None = None
    int8_tops: float | None = None
    fp4_tflops: float | None = None
    interconnect: str = ""
    interconnect_gbs: float | None = None
    pcie_gen: int | None = None
    tdp_w: float | None = None
    unified_memory: bool = False
    multiprocessors: int | None = None
    memory_options_bytes: tuple[int, ...] = ()
    notes: str = ""
    source: str = ""
    assumption: str = field(default="", compare=False)

    @property
    def is_cpu(self) -> bool:
        """The host's processor instead of an accelerator: its memory is the host's RAM."""
        return self.arch == "cpu"


CPU = Device("CPU", arch="cpu", usable_source="the host's RAM", memory_type="host RAM", unified_memory=True)
