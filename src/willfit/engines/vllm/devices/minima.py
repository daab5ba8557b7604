"""The least compute capability that vLLM takes, by version: its own, and those of what a checkpoint is stored in.

Read in the released wheels 0.4.2 to 0.33.0: `layers/quantization/*.py: get_min_capability`, which `config/vllm.py:
_get_quantization_config` compares before anything is loaded, and `compressed_tensors/schemes/*.py` and
`quark/schemes/*.py`, which are compared for each linear layer. Kernels that a version lacks are in `_KERNELS`.
"""

from __future__ import annotations

from willfit.engines.base import Subject
from willfit.engines.versions import Version
from willfit.formats.base import Format
from willfit.formats.compressed_tensors import PackQuantized
from willfit.formats.fp4 import Mxfp4, Nvfp4
from willfit.formats.ggml import Ggml
from willfit.formats.plain import Plain
from willfit.formats.scaled import Scaled

#: Since which version which minimum holds, oldest first. Without a line for a version nothing is asked for.
Steps = tuple[tuple[Version, int], ...]

#: The lowest architecture with code in the wheels' own libraries; those for CUDA 13 begin with Turing.
WHEELS: Steps = (((0,), 70), ((0, 20), 75))
#: The last of them with code for Volta.
LAST_FOR_VOLTA = "0.19.1"

#: By quantization method. Where its fast kernels (Marlin) ask for more, plain ones are taken instead.
_METHODS: dict[str, Steps] = {
    "aqlm": (((0,), 70), ((0, 5), 60)),
    "awq": (((0,), 75),),
    "bitsandbytes": (((0,), 70),),
    "compressed-tensors": (((0,), 60), ((0, 5, 3), 70)),
    "fbgemm_fp8": (((0,), 80),),
    "fp8": (((0,), 89), ((0, 5, 1), 80), ((0, 14), 75)),
    "gguf": (((0,), 60),),
    "gptq": (((0,), 60),),
    "hqq": (((0,), 80),),
    "mxfp4": (((0,), 80),),
    "quark": (((0,), 70),),
    "torchao": (((0,), 75),),
}
#: Methods under other names.
_SAME = {
    "auto-round": "gptq", "auto_round": "gptq", "autoround": "gptq", "intel/auto-round": "gptq", "awq_marlin": "awq",
    "compressed_tensors": "compressed-tensors", "gptq_marlin": "gptq",
}  # fmt: skip

#: Schemes of compressed-tensors, by what a linear layer is stored in. FP8 falls back to 16-bit activations
#: (`CompressedTensorsW8A16Fp8`), NVFP4 to Marlin (`CompressedTensorsW4A16Fp4`).
_SCHEMES: dict[str, Steps] = {
    "int": (((0,), 80), ((0, 12), 75)),
    "int8": (((0,), 75),),
    "fp8": (((0,), 89), ((0, 5, 4), 80), ((0, 16), 75)),
    "fp8 block": (((0,), 89), ((0, 16), 75)),
    "mxfp4": (((0,), 80),),
    "mxfp8": (((0, 20), 75),),
    "nvfp4": (((0,), 80), ((0, 16), 75)),
}

#: Schemes of Quark; it has no FP8 with 16-bit activations.
_QUARK: dict[str, Steps] = {"fp8": (((0,), 89),), "int8": (((0,), 75),)}

#: Methods that compare the scheme of each linear layer.
_BY_LAYER = {"compressed-tensors": _SCHEMES, "quark": _QUARK}

#: ModelOpt's classes, one for each algorithm, and one for checkpoints that mix them.
_MODELOPT: dict[str, Steps] = {
    "fp8": (((0,), 89), ((0, 27), 80)),
    "fp8 block": (((0,), 89), ((0, 27), 80)),
    "mixed": (((0,), 89), ((0, 24), 75)),
    "mxfp8": (((0,), 100), ((0, 20), 80)),
    "nvfp4": (((0,), 100), ((0, 9), 80), ((0, 14), 75)),
}

#: FP8 in blocks, and experts in FP8, ran in Triton's kernels alone until Marlin had them, and Triton has no FP8 below
#: Ada (`layers/quantization/fp8.py: use_marlin`).
_KERNELS: Steps = (((0,), 89), ((0, 9), 0))


def lowest(steps: Steps, version: Version) -> int:
    """The minimum that holds in a version; 0 if none does."""
    return next((minimum for since, minimum in reversed(steps) if version >= since), 0)


def minimum(subject: Subject, version: Version) -> tuple[int, str]:
    """The least compute capability for a checkpoint as it is stored, and what asks for it; 0 where nothing does."""
    asked = [(0, "")]
    method = method_of(subject)
    if method in _METHODS:
        asked.append((lowest(_METHODS[method], version), f"{method} checkpoints"))
    stored = {(kind_of_format(line.format), line.tensor.part == "experts") for line in subject.lines}
    stored.discard(("", False))
    stored.discard(("", True))
    if method == "modelopt":
        kind = "mixed" if len({kind for kind, _ in stored}) > 1 else next((kind for kind, _ in stored), "")
        asked.append((lowest(_MODELOPT.get(kind, ()), version), f"{kind} checkpoints of ModelOpt"))
    for kind, experts in stored:
        if method in _BY_LAYER and not experts:
            asked.append((lowest(_BY_LAYER[method].get(kind, ()), version), f"{kind} of {method}"))
        if kind.startswith("fp8") and (experts or kind == "fp8 block"):
            asked.append((lowest(_KERNELS, version), "experts in fp8" if experts else "fp8 in blocks"))
    return max(asked)


def boundaries(version: Version) -> list[Version]:
    """Later versions that change a minimum, in order."""
    tables = (WHEELS, _KERNELS, *_METHODS.values(), *_MODELOPT.values())
    schemes = (steps for layers in _BY_LAYER.values() for steps in layers.values())
    return sorted({since for steps in (*tables, *schemes) for since, _ in steps if since > version})


def method_of(subject: Subject) -> str:
    """The quantization method under the name that the tables here have for it; empty without one."""
    method = "gguf" if isinstance(subject.recipe.base, Ggml) else subject.recipe.method
    method = "modelopt" if method.startswith("modelopt") else method
    return _SAME.get(method, method)


def kind_of_format(stored: Format) -> str:
    """What a format is to the tables here; empty for what is not quantized, or not told apart."""
    if isinstance(stored, Scaled):
        blocks = " block" if stored.label == "fp8" and stored.granularity == "block" else ""
        return stored.label + blocks
    if isinstance(stored, Plain):
        return ""
    kinds: tuple[tuple[type, str], ...] = ((PackQuantized, "int"), (Mxfp4, "mxfp4"), (Nvfp4, "nvfp4"))
    return next((kind for known, kind in kinds if isinstance(stored, known)), "")
