"""Why SGLang would not start on a device because of what the device is.

Read in the released wheels 0.4.3 to 0.5.23: `layers/quantization/*.py: get_min_capability`, which
`model_loader/loader.py: _get_quantization_config` compares, `compressed_tensors/schemes/*.py`, and
`configs/model_config.py: _verify_quantization` for AMD.
"""

from __future__ import annotations

from willfit.engines.base import Subject
from willfit.engines.needed_capability import Minima, always, since
from willfit.engines.sglang.settings import Settings
from willfit.engines.stored import kinds_of, method_of
from willfit.engines.versions import Version, parse_version
from willfit.hardware.device import Device

#: Triton has no FP8 below Ada. Linear layers have had Marlin in blocks since 0.5.1 (`fp8.py: use_marlin`), experts
#: have not.
_BLOCKS = since(((0,), 89), ((0, 5, 1), 0))

MINIMA = Minima(
    "SGLang",
    # `model_executor/model_runner.py: load_model`.
    own=always(75),
    methods={
        "awq": always(75),
        "bitsandbytes": always(70),
        "compressed-tensors": always(70),
        "fp8": always(80),
        "gguf": always(60),
        # Plain kernels are gone since 0.5.20 (`layers/quantization/__init__.py`), and Marlin's are left.
        "gptq": since(((0,), 60), ((0, 5, 20), 80)),
        "mxfp4": always(80),
        "quark": always(70),
    },
    modelopt={
        "fp8": always(89),
        "fp8 block": always(89),
        "mixed": since(((0,), 100), ((0, 5, 13), 80)),
        "nvfp4": since(((0,), 100), ((0, 5, 13), 80)),
    },
    linears={
        "compressed-tensors": {
            "int": always(80),
            "int8": since(((0,), 75), ((0, 5, 3), 89), ((0, 5, 7), 80)),
            "fp8": always(80),
            "fp8 block": always(80),
            "nvfp4": since(((0,), 100), ((0, 5, 22), 80)),
        },
        "fp8": {"mxfp8": always(100)},
        "quark": {"fp8": always(89)},
    },
    kernels={"fp8 block": _BLOCKS},
    experts={"fp8": always(89), "fp8 block": always(89)},
)

#: What its kernels are built for (`sgl-kernel/setup_rocm.py`); others only where someone asks for it.
_ROCM = ("gfx942", "gfx950")

#: Since when AMD's cards run a method, and since when they no longer do.
_LISTED: dict[str, tuple[Version, Version | None]] = {
    "": ((0,), None),
    "auto-round": ((0, 5, 5), None),
    "awq": ((0,), None),
    "compressed-tensors": ((0,), None),
    "fp8": ((0,), None),
    "gptq": ((0,), (0, 5, 20)),
    "mxfp4": ((0, 5, 1), None),
    "quark": ((0, 5, 1), None),
}
#: ModelOpt's NVFP4, by Petit's kernels.
_NVFP4: tuple[Version, Version | None] = ((0, 4, 10), None)


def device_refusal(subject: Subject, settings: Settings, device: Device) -> str:
    """Why SGLang does not start on a device with a checkpoint as it is stored; empty if it does."""
    version = parse_version(settings.version)
    if device.vendor == "AMD":
        return _rocm(subject, settings, version, device)
    return MINIMA.refusal(subject, version, device)


def _rocm(subject: Subject, settings: Settings, version: Version, device: Device) -> str:
    architecture = device.compute_capability
    if architecture.startswith("gfx") and architecture not in _ROCM:
        return f"SGLang's kernels are built for {' and '.join(_ROCM)}, not for {architecture}; vLLM may run"
    method = method_of(subject)
    nvfp4 = method == "modelopt" and any(kind == "nvfp4" for kind, _ in kinds_of(subject))
    first, last = _NVFP4 if nvfp4 else _LISTED.get(method, (version, version))
    if version < first or (last is not None and version >= last):
        return f"SGLang {settings.version} does not run {method} checkpoints on AMD's cards; take one in fp8 or awq"
    # Marlin, which runs AWQ in bfloat16, is CUDA's (`awq/awq.py: get_supported_act_dtypes`).
    own = settings.dtype == "auto" and subject.architecture.dtype == "bf16"
    if method == "awq" and (own or settings.dtype in ("bf16", "bfloat16")):
        return "SGLang runs awq checkpoints in fp16 only on AMD's cards; add --dtype half"
    return ""
