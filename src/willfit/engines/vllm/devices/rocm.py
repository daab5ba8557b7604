"""What vLLM refuses on AMD's cards: quantizations that ROCm's platform does not list, and cards without kernels.

Read in `platforms/rocm.py: supported_quantization` (before 0.6.6 `config.py`), 0.4.2 to 0.33.0.
"""

from __future__ import annotations

from willfit.engines.base import Subject
from willfit.engines.stored import kinds_of, method_of
from willfit.engines.versions import Version
from willfit.hardware.device import Device

#: Architectures that it is built for (`CMakeLists.txt: HIP_SUPPORTED_ARCHS`, the longest list).
_BUILT_FOR = frozenset(
    (
        "gfx906", "gfx908", "gfx90a", "gfx942", "gfx950", "gfx1030", "gfx1100", "gfx1101", "gfx1102", "gfx1103",
        "gfx1150", "gfx1151", "gfx1152", "gfx1153", "gfx1200", "gfx1201",
    )
)  # fmt: skip

#: Since when a method is listed.
_LISTED: dict[str, Version] = {
    "": (0,), "gptq": (0,), "fp8": (0, 5, 5), "awq": (0, 6), "compressed-tensors": (0, 6, 2),
    "fbgemm_fp8": (0, 6, 2), "gguf": (0, 6, 6), "quark": (0, 7), "mxfp4": (0, 10, 1), "torchao": (0, 10, 2),
    "bitsandbytes": (0, 12), "modelopt": (0, 22), "mxfp8": (0, 22), "auto-round": (0, 28),
}  # fmt: skip
#: NVFP4 of ModelOpt: by Petit's kernels at first, then as its own.
_NVFP4: Version = (0, 10, 2)
#: bitsandbytes on cards whose warps have 64 threads.
_WIDE_WARPS: Version = (0, 17)

#: Cards whose matrix units read FP8 (`kernels/linear/scaled_mm/pytorch.py: _rocm_torch_fp8_scaled_mm_supported`); those
#: without one have Triton's kernels for FP8 in blocks, and none for one scale a tensor or channel.
_FP8 = ("gfx94", "gfx95", "gfx12")


def not_built(device: Device) -> str:
    """Why it runs nothing on a card of AMD's; empty if it runs something."""
    architecture = device.compute_capability
    known = not architecture.startswith("gfx") or architecture in _BUILT_FOR
    return "" if known else f"vLLM is not built for {architecture}; llama.cpp is, with Vulkan"


def rocm_refusal(subject: Subject, version: Version, device: Device) -> str:
    """Why it does not run a checkpoint as it is stored on a card of AMD's; empty if it does."""
    architecture = device.compute_capability
    method = method_of(subject)
    kinds = {kind for kind, experts in kinds_of(subject) if not experts}
    since = _NVFP4 if method == "modelopt" and "nvfp4" in kinds else _LISTED.get(method)
    if since is None:
        return f"vLLM does not run {method} checkpoints on AMD's cards; take one in awq or gptq"
    if method == "bitsandbytes" and architecture.startswith("gfx9"):
        since = _WIDE_WARPS
    if version < since:
        later = ".".join(map(str, since))
        return f"this version of vLLM does not run {method} checkpoints on AMD's cards; {later} and later do"
    if "fp8" in kinds and architecture.startswith("gfx") and not architecture.startswith(_FP8):
        return "vLLM runs fp8 on AMD's cards from CDNA3 (MI300) and RDNA4 on; take awq or gptq"
    return ""
