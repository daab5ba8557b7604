"""The least compute capability that vLLM takes, by version.

Read in the released wheels 0.4.2 to 0.33.0: `layers/quantization/*.py: get_min_capability`, which `config/vllm.py:
_get_quantization_config` compares before anything is loaded, and `compressed_tensors/schemes/*.py` and
`quark/schemes/*.py`, which are compared for each linear layer.
"""

from __future__ import annotations

from willfit.engines.needed_capability import Minima, always, since

#: The last wheels with code for Volta: those for CUDA 13 begin with Turing.
LAST_FOR_VOLTA = "0.19.1"

#: Triton has no FP8 below Ada; Marlin has had it in blocks, and for experts, since 0.9 (`fp8.py: use_marlin`).
_FP8 = since(((0,), 89), ((0, 9), 0))

MINIMA = Minima(
    "vLLM",
    # The lowest architecture with code in the wheels' libraries.
    own=since(((0,), 70), ((0, 20), 75)),
    # Where a method's fast kernels (Marlin) ask for more, plain ones are taken instead.
    methods={
        "aqlm": since(((0,), 70), ((0, 5), 60)),
        "auto-round": always(60),
        "awq": always(75),
        "bitsandbytes": always(70),
        "compressed-tensors": since(((0,), 60), ((0, 5, 3), 70)),
        "fbgemm_fp8": always(80),
        "fp8": since(((0,), 89), ((0, 5, 1), 80), ((0, 14), 75)),
        "gguf": always(60),
        "gptq": always(60),
        "hqq": always(80),
        "mxfp4": always(80),
        "quark": always(70),
        "torchao": always(75),
    },
    modelopt={
        "fp8": since(((0,), 89), ((0, 27), 80)),
        "fp8 block": since(((0,), 89), ((0, 27), 80)),
        "mixed": since(((0,), 89), ((0, 24), 75)),
        "mxfp8": since(((0,), 100), ((0, 20), 80)),
        "nvfp4": since(((0,), 100), ((0, 9), 80), ((0, 14), 75)),
    },
    linears={
        # FP8 falls back to 16-bit activations (`CompressedTensorsW8A16Fp8`), NVFP4 to Marlin.
        "compressed-tensors": {
            "int": since(((0,), 80), ((0, 12), 75)),
            "int8": always(75),
            "fp8": since(((0,), 89), ((0, 5, 4), 80), ((0, 16), 75)),
            "fp8 block": since(((0,), 89), ((0, 16), 75)),
            "mxfp4": always(80),
            "mxfp8": always(75),
            "nvfp4": since(((0,), 80), ((0, 16), 75)),
        },
        # Quark's FP8 falls back to nothing.
        "quark": {"fp8": always(89), "int8": always(75)},
    },
    kernels={"fp8 block": _FP8},
    experts={"fp8": _FP8, "fp8 block": _FP8},
)
