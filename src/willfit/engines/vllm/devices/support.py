"""Why vLLM would not start on a device because of what the device is."""

from __future__ import annotations

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.architectures.model import Architecture
from willfit.engines.base import Subject
from willfit.engines.capability import capability_named, is_below
from willfit.engines.versions import Version, parse_version
from willfit.engines.vllm.cache.specs import kv_dtype_of
from willfit.engines.vllm.devices.dtypes import dtype_refusal, model_dtype
from willfit.engines.vllm.devices.minima import LAST_FOR_VOLTA, WHEELS, boundaries, lowest, minimum
from willfit.engines.vllm.devices.rocm import rocm_refusal
from willfit.engines.vllm.settings import Settings
from willfit.hardware.device import Device

#: Since when Turing has no backend for an 8-bit cache: FlashInfer is left out, and Triton's kernels read FP8 from Ada
#: on (`v1/attention/backends/flashinfer.py: supports_compute_capability`, `triton_attn.py`).
_FP8_CACHE: Version = (0, 24)
#: FlashInfer reads it on Ampere, for heads of these widths.
_FLASHINFER, _FLASHINFER_WIDTHS = 80, frozenset((64, 128, 256, 512))
#: Latents have Triton's kernels alone before Hopper: with an 8-bit cache since a version, and from Ada on since another
#: (`v1/attention/backends/mla/triton_mla.py`).
_FP8_LATENTS: Version = (0, 18)
_ADA_LATENTS: Version = (0, 26)
_VOLTA, _TRITON_FP8, _HOPPER = 70, 89, 90
#: Since when V1 is the only engine.
_ONLY_V1: Version = (0, 11)


def device_refusal(subject: Subject, settings: Settings, device: Device) -> str:
    """Why vLLM does not start on a device with a checkpoint as it is stored; empty if it does.

    The text depends on nothing that devices of a kind (`vllm.kinds`) differ in.
    """
    version = parse_version(settings.version)
    return (
        too_old(device, settings.version)
        or (rocm_refusal(subject, version, device) if device.vendor == "AMD" else "")
        or _stored(subject, settings.version, device)
        or dtype_refusal(subject, settings, device)
        or _cache(subject, settings, device)
        or _sparse(subject.architecture, device)
    )


def too_old(device: Device, version: str) -> str:
    """Why a version runs nothing on a device of NVIDIA's."""
    least = lowest(WHEELS, parse_version(version))
    if device.vendor == "AMD" or not is_below(device, least):
        return ""
    last = "" if is_below(device, _VOLTA) else f"; {LAST_FOR_VOLTA} was the last for Volta"
    return f"vLLM {version} runs on cards of {capability_named(least)} and newer{last}; llama.cpp runs on older ones"


def _stored(subject: Subject, version: str, device: Device) -> str:
    """Quantizations that ask for a newer card."""
    numbers = parse_version(version)
    least, what = minimum(subject, numbers)
    if not is_below(device, least):
        return ""
    later = next((one for one in boundaries(numbers) if _runs(subject, one, device)), None)
    hint = f"vLLM {'.'.join(map(str, later))} does" if later else "take a gptq checkpoint or 16 bits"
    return f"vLLM {version} runs {what} on cards of {capability_named(least)} and newer; {hint}"


def _runs(subject: Subject, version: Version, device: Device) -> bool:
    return not is_below(device, max(minimum(subject, version)[0], lowest(WHEELS, version)))


def _cache(subject: Subject, settings: Settings, device: Device) -> str:
    """An 8-bit cache where no kernel reads it."""
    architecture, version = subject.architecture, parse_version(settings.version)
    dtype = model_dtype(subject, settings, device)
    stored = kv_dtype_of(settings, subject.recipe.kv_cache_dtype, dtype, architecture, device)
    if device.vendor == "AMD" or version < _ONLY_V1 or not stored.startswith("fp8"):
        return ""
    mixers = [mixer for layer, _ in architecture.blocks for mixer in layer.mixers]
    widths = {mixer.head_dim for mixer in mixers if isinstance(mixer, Attention)}
    if any(isinstance(mixer, LatentAttention) for mixer in mixers):
        least = _HOPPER if version < _FP8_LATENTS else _TRITON_FP8 if version >= _ADA_LATENTS else 0
    elif version < _FP8_CACHE:
        return ""
    else:
        least = _FLASHINFER if widths <= _FLASHINFER_WIDTHS else _TRITON_FP8
    if not is_below(device, least):
        return ""
    return (
        f"vLLM {settings.version} reads an fp8 cache of this model on cards of {capability_named(least)} and newer; "
        "take --kv-cache-dtype auto"
    )


def _sparse(architecture: Architecture, device: Device) -> str:
    """Sparse attention over latents has kernels for Hopper and newer only (`platforms/cuda.py`)."""
    mixers = (mixer for layer, _ in architecture.blocks for mixer in layer.mixers)
    sparse = any(isinstance(mixer, LatentAttention) and mixer.index_dim for mixer in mixers)
    return (
        "vLLM has no kernels for sparse attention on cards before Hopper"
        if sparse and is_below(device, _HOPPER)
        else ""
    )
