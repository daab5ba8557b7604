"""Why vLLM would not start on a device because of what the device is."""

from __future__ import annotations

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.architectures.model import Architecture
from willfit.engines.base import Subject
from willfit.engines.capability import capability_named, is_below
from willfit.engines.versions import Version, parse_version
from willfit.engines.vllm.cache.specs import kv_dtype_of
from willfit.engines.vllm.devices.dtypes import dtype_refusal, model_dtype
from willfit.engines.vllm.devices.minima import LAST_FOR_VOLTA, MINIMA
from willfit.engines.vllm.devices.rocm import not_built, rocm_refusal
from willfit.engines.vllm.settings import Settings
from willfit.hardware.device import Device

#: Since when Turing has no backend for an 8-bit cache: FlashInfer is left out, and Triton's kernels read FP8 from Ada
#: on (`v1/attention/backends/flashinfer.py: supports_compute_capability`, `triton_attn.py`).
_FP8_CACHE: Version = (0, 24)
#: FlashInfer reads it on Ampere, for heads of these widths, and neither where attention has sinks nor where the tokens
#: of an image see each other (`transformers_utils/model_arch_config_convertor.py: is_mm_prefix_lm`).
_FLASHINFER, _FLASHINFER_WIDTHS = 80, frozenset((64, 128, 256, 512))
_IMAGES_BOTH_WAYS = frozenset(("bagel", "gemma3", "molmo2", "moondream3", "paligemma"))
#: Latents have Triton's kernels alone before Hopper: with an 8-bit cache since a version, and from Ada on since another
#: (`v1/attention/backends/mla/triton_mla.py`).
_FP8_LATENTS: Version = (0, 18)
_ADA_LATENTS: Version = (0, 26)
_VOLTA, _TURING, _TRITON_FP8, _HOPPER = 70, 75, 89, 90
#: Since when V1 is the only engine.
_ONLY_V1: Version = (0, 11)


def device_refusal(subject: Subject, settings: Settings, device: Device) -> str:
    """Why vLLM does not start on a device with a checkpoint as it is stored; empty if it does.

    The text depends on nothing that devices of a kind (`vllm.kinds`) differ in.
    """
    version = parse_version(settings.version)
    return (
        unfit(device, settings.version)
        or (rocm_refusal(subject, version, device) if device.vendor == "AMD" else "")
        or MINIMA.refusal(subject, version, device)
        or dtype_refusal(subject, settings, device)
        or _cache(subject, settings, device)
        or _sparse(subject.architecture, device)
    )


def unfit(device: Device, version: str) -> str:
    """Why a version runs nothing on a device; empty if it runs something, or that is not known."""
    if device.vendor == "AMD":
        return not_built(device)
    refused = MINIMA.unfit(parse_version(version), device)
    return f"{refused}; {LAST_FOR_VOLTA} was the last for Volta" if refused and _is_volta(device) else refused


def _is_volta(device: Device) -> bool:
    return is_below(device, _TURING) and not is_below(device, _VOLTA)


def _cache(subject: Subject, settings: Settings, device: Device) -> str:
    """An 8-bit cache where no kernel reads it."""
    architecture, version = subject.architecture, parse_version(settings.version)
    dtype = model_dtype(subject, settings, device)
    stored = kv_dtype_of(settings, subject.recipe.kv_cache_dtype, dtype, architecture, device)
    if device.vendor == "AMD" or version < _ONLY_V1 or not stored.startswith("fp8"):
        return ""
    mixers = [mixer for layer, _ in architecture.blocks for mixer in layer.mixers]
    if any(isinstance(mixer, LatentAttention) for mixer in mixers):
        least = _HOPPER if version < _FP8_LATENTS else _TRITON_FP8 if version >= _ADA_LATENTS else 0
    elif version < _FP8_CACHE:
        return ""
    else:
        least = _FLASHINFER if _has_flashinfer(architecture, settings) else _TRITON_FP8
    if not is_below(device, least):
        return ""
    return (
        f"vLLM {settings.version} reads an fp8 cache of this model on cards of {capability_named(least)} and newer; "
        "take --kv-cache-dtype auto"
    )


def _has_flashinfer(architecture: Architecture, settings: Settings) -> bool:
    blocks = [layer for layer, _ in architecture.blocks]
    widths = {mixer.head_dim for layer in blocks for mixer in layer.mixers if isinstance(mixer, Attention)}
    sinks = any(tensor.name.endswith(".sinks") for layer in blocks for tensor in layer.tensors)
    images = architecture.model_type in _IMAGES_BOTH_WAYS and not settings.language_model_only
    return widths <= _FLASHINFER_WIDTHS and not sinks and not images


def _sparse(architecture: Architecture, device: Device) -> str:
    """Sparse attention over latents has kernels for Hopper and newer only (`platforms/cuda.py`)."""
    mixers = (mixer for layer, _ in architecture.blocks for mixer in layer.mixers)
    sparse = any(isinstance(mixer, LatentAttention) and mixer.index_dim for mixer in mixers)
    return (
        "vLLM has no kernels for sparse attention on cards before Hopper"
        if sparse and is_below(device, _HOPPER)
        else ""
    )
