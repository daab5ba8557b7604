"""Which attention kernels SGLang takes, and what page size they ask for.

`server_args.py: _get_default_attn_backend, _handle_attention_backend_compatibility, _handle_page_size` (0.5.12),
later `arg_groups/overrides.py`.
"""

from __future__ import annotations

from willfit.architectures.mixers import LatentAttention
from willfit.architectures.model import Architecture
from willfit.engines.sglang.eras import Era
from willfit.engines.sglang.settings import Settings
from willfit.hardware.device import Device
from willfit.quantities import MIB

#: Pages of the kernels for sparse latent attention and for compressed attention
#: (`arg_groups/model_overrides/deepseek_v2.py`, `deepseek_v4.py`, `minimax_m3.py`).
_SPARSE_PAGE, _COMPRESSED_PAGE, _INDEXED_PAGE = 64, 256, 128

#: Backend -> (page sizes that it runs with, the one that is taken instead of any other). A backend that only decodes
#: decides as well.
_PAGES: dict[str, tuple[tuple[int, ...], int]] = {
    "flashmla": ((64,), 64),
    "cutlass_mla": ((128,), 128),
    "trtllm_mla": ((32, 64), 64),
    "tokenspeed_mla": ((32, 64), 64),
    "trtllm_mha": ((16, 32, 64), 64),
    "intel_xpu": ((64, 128), 128),
}

#: Pages on devices whose kernels have no smaller ones by default.
_VENDOR_PAGES = {"Huawei": 128}

#: FlashInfer's workspace, and that for models whose heads are many (`environ.py: SGLANG_FLASHINFER_WORKSPACE_SIZE`,
#: `layers/attention/flashinfer_backend.py`).
_WORKSPACE, _LARGE_WORKSPACE = 384 * MIB, 512 * MIB
_LARGE_WORKSPACES = frozenset({"qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "mimo"})


def attention_backend(settings: Settings, architecture: Architecture, device: Device, era: Era) -> str:
    """The backend as asked, else the one that fits the device."""
    if settings.attention_backend:
        return settings.attention_backend
    if device.vendor == "Huawei":
        return "ascend"
    if device.vendor == "AMD":
        return "aiter"
    major = _major(device)
    if has_latent(architecture):
        return "fa3" if major == 9 else "flashinfer" if major == 10 else "triton"
    if major == 9:
        return "fa3"
    if major == 10 and era.wide_default:
        return "trtllm_mha"
    return "flashinfer" if major >= 8 or not major else "triton"


def page_size(settings: Settings, architecture: Architecture, device: Device, era: Era) -> int:
    """Tokens in a page: as asked or 1, unless the kernels have others only."""
    asked = settings.page_size or _VENDOR_PAGES.get(device.vendor, 1)
    for mixer in (mixer for layer, _ in architecture.blocks for mixer in layer.mixers):
        name = type(mixer).__name__
        if isinstance(mixer, LatentAttention) and mixer.index_dim and device.vendor != "Huawei":
            return max(asked, _SPARSE_PAGE) * mixer.index_pool
        if name == "CompressedAttention":
            return max(asked, _COMPRESSED_PAGE)
        if name == "IndexedAttention":
            return max(asked, _INDEXED_PAGE)
    prefill = attention_backend(settings, architecture, device, era)
    for backend in (prefill, settings.decode_attention_backend or ""):
        sizes, otherwise = _PAGES.get(backend, ((), 0))
        if otherwise and asked not in sizes:
            asked = otherwise
    if prefill == "fa4" and not has_latent(architecture):
        return 128
    return asked


def workspace_bytes(settings: Settings, architecture: Architecture, device: Device, era: Era) -> int:
    """Bytes that the attention kernels take beside the pools when they are set up."""
    if attention_backend(settings, architecture, device, era) != "flashinfer":
        return 0
    return _LARGE_WORKSPACE if architecture.model_type in _LARGE_WORKSPACES else _WORKSPACE


def has_latent(architecture: Architecture) -> bool:
    """Whether attention layers are latent."""
    return any(isinstance(m, LatentAttention) for layer, _ in architecture.blocks for m in layer.mixers)


def _major(device: Device) -> int:
    major = device.compute_capability.split(".")[0]
    return int(major) if major.isdigit() else 0
