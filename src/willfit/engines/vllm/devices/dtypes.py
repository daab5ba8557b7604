"""In which dtype vLLM computes on a device, and which it refuses there (`config/model.py`, `platforms/cuda.py`)."""

from __future__ import annotations

from willfit.engines.base import Subject
from willfit.engines.capability import is_below
from willfit.engines.stored import method_of
from willfit.engines.versions import Version, parse_version
from willfit.engines.vllm.settings import Settings
from willfit.formats.gptq import Gptq
from willfit.hardware.device import Device
from willfit.quantities import dtype_name

#: bfloat16 begins with Ampere.
_BF16 = 80

#: Since when `auto` takes another dtype where the device lacks the config's; before, bfloat16 is refused by the
#: worker (`worker/worker.py: _check_if_gpu_supports_dtype`).
_FALLS_BACK: Version = (0, 9)

#: Since when models that overflow in fp16 are refused in it and fall back to fp32 (`_FLOAT16_NOT_SUPPORTED_MODELS`).
_KNOWS_OVERFLOWS: Version = (0, 9, 1)
_OVERFLOWS = frozenset({"gemma2", "gemma3", "gemma3_text", "glm4", "plamo2"})

#: Since when these methods' kernels run in bfloat16 wherever they run (`auto_gptq.py`, `auto_awq.py`); before, only
#: Marlin's did, which are CUDA's, and of GPTQ for 4 and 8 bits.
_ANY_16_BITS: dict[str, Version] = {"gptq": (0, 22), "awq": (0, 24)}
_MARLIN_BITS = (4, 8)

#: Methods that run in fp32 as well, and since when (`get_supported_act_dtypes`).
_FP32: dict[str, Version] = {
    "": (0,), "bitsandbytes": (0,), "torchao": (0,), "gguf": (0, 8), "compressed-tensors": (0, 10, 1),
}  # fmt: skip


def model_dtype(subject: Subject, settings: Settings, device: Device) -> str:
    """The activation dtype: as asked, else the config's; fp32 checkpoints run in 16 bits (`_resolve_auto_dtype`).

    Cards before Ampere have no bfloat16: models run in fp16 there, and in fp32 those that overflow.
    """
    asked = settings.dtype not in (None, "auto")
    if settings.dtype and asked:
        return dtype_name(settings.dtype)
    dtype, has_bf16 = subject.architecture.dtype, not is_below(device, _BF16)
    if dtype == "fp16" and _overflows(subject, settings):
        dtype = "fp32"
    if dtype == "fp32" and has_bf16:
        return "bf16"
    if dtype in ("fp32", "bf16") and not has_bf16:
        return "fp32" if _overflows(subject, settings) else "fp16"
    return dtype


def dtype_refusal(subject: Subject, settings: Settings, device: Device) -> str:
    """Why the dtype does not go with the device or the quantization; empty if it does."""
    version = parse_version(settings.version)
    asked = settings.dtype not in (None, "auto")
    dtype = model_dtype(subject, settings, device)
    without_bf16 = is_below(device, _BF16)
    if without_bf16 and dtype == "bf16":
        return "cards before Ampere have no bfloat16; add --dtype half"
    if without_bf16 and not asked and version < _FALLS_BACK and subject.architecture.dtype == "bf16":
        return f"vLLM {settings.version} takes the config's bfloat16, which cards before Ampere lack; add --dtype half"
    if asked and dtype == "fp16" and _overflows(subject, settings):
        return f"vLLM does not run {subject.architecture.model_type} in fp16; take --dtype float32"
    method = method_of(subject)
    if dtype == "fp32" and (method not in _FP32 or version < _FP32[method]):
        why = "" if asked else f", and {subject.architecture.model_type} does not run in fp16"
        return f"vLLM {settings.version} runs {method} checkpoints in 16 bits only{why}"
    if dtype != "fp16" and version < _ANY_16_BITS.get(method, (0,)) and not _has_marlin(subject, device):
        return f"vLLM {settings.version} runs this {method} checkpoint in fp16 only; add --dtype half"
    return ""


def _overflows(subject: Subject, settings: Settings) -> bool:
    known = parse_version(settings.version) >= _KNOWS_OVERFLOWS
    return known and subject.architecture.model_type in _OVERFLOWS


def _has_marlin(subject: Subject, device: Device) -> bool:
    bits = {line.format.bits for line in subject.lines if isinstance(line.format, Gptq)}
    return device.vendor != "AMD" and all(number in _MARLIN_BITS for number in bits)
