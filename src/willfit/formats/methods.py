"""What is known of quantization methods besides their bytes: how they are made, and what can be trained on them.

Each row says where it was read. `trained` names adapters of PEFT 0.21 (`tuners/lora/model.py: _create_new_module` lists
what LoRA replaces) whose base transformers 5.23 takes for training (`quantizers/quantizer_*.py: is_trainable`), or
another trainer by name. Which engines load a format is theirs to say (`willfit.planning.advice`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Made = Literal["not at all", "after training", "in training", "after or in training"]
Reach = Literal["nothing", "weights", "weights and activations"]
Calibration = Literal["none", "optional", "needed"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One format of a method.

    Attributes
    ----------
    name
        As `--format` takes it; None for the model's own dtype.
    when
        When to take it, in a line.
    """

    name: str | None
    when: str


@dataclass(frozen=True, slots=True)
class Method:
    """A way to quantize a model.

    Attributes
    ----------
    title
        What it is called.
    recipes
        Methods of checkpoints that are it, as `Recipe.method` has them.
    made
        When the numbers are made: from a trained model, or trained as they are.
    reach
        What is computed in few bits.
    calibration
        Whether texts are needed to make it.
    trained
        What can be fine-tuned on it; empty for nothing.
    source
        Where this was read.
    variants
        Its formats; none for a method that no tool makes of any model.
    """

    title: str
    recipes: tuple[str, ...]
    made: Made
    reach: Reach
    calibration: Calibration
    trained: tuple[str, ...]
    source: str
    variants: tuple[Variant, ...] = ()


_PEFT = "peft 0.21.2 tuners/lora/{}.py, transformers 5.23.0 quantizers/quantizer_{}.py: is_trainable"
_NO_TRAINING = "transformers 5.23.0 quantizers/quantizer_{}.py: is_trainable"

#: Adapters with layers of their own for bitsandbytes (`tuners/*/bnb.py`).
_BITSANDBYTES = ("LoRA", "AdaLoRA", "HiRA", "IA3", "PVeRA", "RandLora", "RoAd")

#: All methods that are known. A name of a format occurs once.
METHODS: tuple[Method, ...] = (
    Method(
        "not quantized", ("",), "not at all", "nothing", "none", ("all parameters", "every adapter"),
        "transformers 5.23.0 trainer_utils.py: validate_quantization_for_training",
        (Variant(None, "where it fits with room to spare: nothing is lost, and everything can be trained"),),
    ),
    Method(
        "FP8", ("fp8",), "after or in training", "weights and activations", "none", ("LoRA",),
        "transformers 5.23.0 integrations/finegrained_fp8.py: FP8LinearFunction (its backward pass is for adapters), "
        "quantizers/quantizer_finegrained_fp8.py: is_trainable",
        (
            Variant("fp8", "if a server shall make 8 bits while it loads: no files to prepare"),
            Variant("fp8-block", "where a publisher offers it (DeepSeek, Qwen): a scale for each block of 128 by 128"),
            Variant("mxfp8", "where arithmetic knows groups of 32 with a shared exponent, as Blackwell's does"),
        ),
    ),
    Method(
        "FP8 of llm-compressor", (), "after training", "weights and activations", "none", (),
        "llm-compressor modifiers/quantization with compressed_tensors/quantization/quant_scheme.py: FP8_DYNAMIC; "
        "transformers 5.23.0 quantizers/quantizer_compressed_tensors.py: is_trainable (not with its FP8 kernel)",
        (Variant("fp8-dynamic", "the usual 8 bits of a server: a scale for each row, activations scaled at run time"),),
    ),
    Method(
        "FP8, static", (), "after training", "weights and activations", "needed", (),
        "compressed_tensors/quantization/quant_scheme.py: FP8 (input scales are observed on texts); transformers "
        "5.23.0 quantizers/quantizer_compressed_tensors.py: is_trainable",
        (Variant("fp8-static", "if scaling activations at run time is what holds a server up"),),
    ),
    Method(
        "FBGEMM FP8", ("fbgemm_fp8",), "after training", "weights and activations", "none", (),
        _NO_TRAINING.format("fbgemm_fp8"),
        (Variant("fbgemm-fp8", "for Llama 3.1 405B as it was published; else another FP8, as engines drop it"),),
    ),
    Method(
        "INT8 W8A8", (), "after training", "weights and activations", "needed", (),
        "llm-compressor modifiers/smoothquant, compressed_tensors/quantization/quant_scheme.py: W8A8",
        (Variant("int8", "8 bits in weights and activations on cards without FP8 arithmetic, as Turing and Ampere"),),
    ),
    Method(
        "compressed-tensors, weights only", ("compressed-tensors", "compressed_tensors"), "after training", "weights",
        "needed", (),
        "compressed_tensors/quantization/quant_scheme.py: W8A16, W4A16; peft 0.21.2 has no dispatcher for its layers",
        (
            Variant("w8a16", "if a server shall lose next to nothing and activations stay in 16 bits"),
            Variant("w4a16", "4 bits for a server: GPTQ or AWQ in the layout of llm-compressor, which writes it"),
            Variant("w4a16-g32", "as w4a16, where finer groups are worth half a bit"),
        ),
    ),
    Method(
        "GPTQ", ("gptq", "gptq_marlin", "auto-round", "auto_round", "autoround", "intel/auto-round"), "after training",
        "weights", "needed", ("LoRA", "AdaLoRA"), _PEFT.format("gptq", "gptq"),
        (
            Variant("gptq-int8", "8 bits for a server without FP8, from a tool that also writes fewer"),
            Variant("gptq", "4 bits for a server, if the model is published so, or LoRA shall be trained on it"),
            Variant("gptq-g32", "as gptq, where finer groups are worth half a bit"),
            Variant("gptq-int3", "if 4 bits do not fit; EXL3 and i-quants of as many bits lose less"),
            Variant("gptq-int2", "for research: so coarse a grid loses much"),
        ),
    ),
    Method(
        "AWQ", ("awq", "awq_marlin"), "after training", "weights", "needed", ("LoRA",), _PEFT.format("awq", "awq"),
        (
            Variant("awq", "the usual 4 bits of a server, old cards among them"),
            Variant("awq-g32", "as awq, where finer groups are worth half a bit"),
        ),
    ),
    Method(
        "LLM.int8()", (), "after training", "weights and activations", "none", _BITSANDBYTES,
        _PEFT.format("bnb", "bnb_8bit"),
        (Variant("bnb-int8", "for trying a model in transformers, or LoRA on a base of 8 bits; slower than 16 bits"),),
    ),
    Method(
        "bitsandbytes, 4 bits", ("bitsandbytes",), "after training", "weights", "none", _BITSANDBYTES,
        _PEFT.format("bnb", "bnb_4bit"),
        (
            Variant("nf4", "for QLoRA, and for trying a model in transformers: made while it loads"),
            Variant("nf4-double", "as nf4, with quantized scales: 0.4 bits less for each weight"),
            Variant("fp4", "rather nf4, whose levels fit weights better"),
        ),
    ),
    Method(
        "HQQ", ("hqq",), "after training", "weights", "none", ("LoRA",), _PEFT.format("hqq", "hqq"),
        (
            Variant("hqq8", "8 bits in seconds, without texts"),
            Variant("hqq4", "4 bits in seconds, without texts; LoRA can be trained on it"),
            Variant("hqq3", "if 4 bits do not fit and nothing shall be calibrated"),
            Variant("hqq2", "for research, or large mixtures of experts"),
        ),
    ),
    Method(
        "EETQ", ("eetq",), "after training", "weights", "none", ("LoRA",), _PEFT.format("eetq", "eetq"),
        (Variant("eetq", "8 bits in TGI and transformers, made while it loads"),),
    ),
    Method(
        "AQLM", ("aqlm",), "after training", "weights", "needed", ("LoRA",), _PEFT.format("aqlm", "aqlm"),
        (
            Variant("aqlm-1x16", "2 bits that keep more than grids do, where it is published: making it takes days"),
            Variant("aqlm-2x8", "as aqlm-1x16, faster and a little less exact"),
        ),
    ),
    Method(
        "torchao, 8 bits", (), "after training", "weights", "none", ("LoRA",),
        _PEFT.format("torchao", "torchao"),
        (Variant("torchao-int8", "8 bits with torch.compile, and a base for LoRA"),),
    ),
    Method(
        "torchao, FP8", (), "after training", "weights", "none", ("LoRA",), _PEFT.format("torchao", "torchao"),
        (Variant("torchao-fp8", "8 bits with torch.compile, in floating point"),),
    ),
    Method(
        "torchao, 4 bits", ("torchao",), "after or in training", "weights", "none", (),
        "peft 0.21.2 tuners/lora/torchao.py: _check_dtype_supported, torchao/quantization/qat",
        (Variant("torchao-int4", "4 bits with torch.compile, or after training for it with torchao or torchtune"),),
    ),
    Method(
        "quanto", ("quanto",), "after training", "weights", "none", (),
        "transformers 5.23.0 quantizers/quantizer_quanto.py; peft 0.21.2 has no layer for it and does not say",
        (
            Variant("quanto-int8", "8 bits on devices that other tools do not know, as Apple's with torch"),
            Variant("quanto-int4", "4 bits on devices that other tools do not know"),
        ),
    ),
    Method(
        "NVFP4", ("modelopt", "modelopt_fp4", "modelopt_mixed"), "after or in training", "weights and activations",
        "needed", (), "modelopt/torch/quantization/config.py: NVFP4_DEFAULT_CFG; " + _NO_TRAINING.format("nvfp4"),
        (Variant("nvfp4", "the usual 4 bits on Blackwell, whose arithmetic they are; elsewhere weights alone gain"),),
    ),
    Method(
        "MXFP4", (), "after training", "weights", "none", (), _NO_TRAINING.format("mxfp4"),
        (Variant("mxfp4", "4 bits that every vendor's new cards know; coarser than NVFP4"),),
    ),
    Method(
        "MXFP4 experts, as trained", ("mxfp4",), "in training", "weights", "none", (),
        "openai/gpt-oss model card: post-trained with MXFP4 quantization of the MoE weights; "
        + _NO_TRAINING.format("mxfp4"),
    ),
    Method(
        "BitNet", ("bitnet",), "in training", "weights and activations", "none", (),
        "microsoft/BitNet; transformers 5.23.0 quantizers/quantizer_bitnet.py: is_qat_trainable (online mode alone)",
    ),
    Method(
        "GGUF, simple types", (), "after training", "weights", "none", (),
        "llama.cpp b11549 ggml/src/ggml-quants.c; " + _NO_TRAINING.format("gguf"),
        (Variant("q8_0", "on any device with llama.cpp, if it fits: next to nothing is lost"),),
    ),
    Method(
        "GGUF, for quantization-aware training", (), "after or in training", "weights", "optional", (),
        "google/gemma-3-*-it-qat-q4_0-gguf model cards; llama.cpp b11549 tools/quantize/quantize.cpp",
        (Variant("q4_0", "where a publisher trained for it (Gemma's QAT): then it beats larger files; else q4_k_m"),),
    ),
    Method(
        "GGUF, K-quants", (), "after training", "weights", "optional", (),
        "llama.cpp b11549 tools/quantize/README.md (--imatrix); " + _NO_TRAINING.format("gguf"),
        (
            Variant("q6_k", "on any device with llama.cpp, where q8_0 does not fit: hardly told apart from it"),
            Variant("q5_k_m", "a little finer than the usual, where there is room"),
            Variant("q4_k_m", "the usual file of llama.cpp, Ollama and LM Studio"),
            Variant("q3_k_m", "if 4 bits do not fit; rather an i-quant of as many bits, but on processors"),
            Variant("q2_k", "a last resort; rather more bits of a smaller model"),
        ),
    ),
    Method(
        "GGUF, i-quants", (), "after training", "weights", "optional", (),
        "llama.cpp b11549 src/llama-quant.cpp: tensor_requires_imatrix; " + _NO_TRAINING.format("gguf"),
        (
            Variant("iq4_xs", "a little smaller than q4_k_m, as good; slower on processors"),
        ),
    ),
    Method(
        "GGUF, i-quants with an importance matrix", (), "after training", "weights", "needed", (),
        "llama.cpp b11549 src/llama-quant.cpp: tensor_requires_imatrix; " + _NO_TRAINING.format("gguf"),
        (
            Variant("iq3_xxs", "3 bits that keep more than K-quants of that size, on a card"),
            Variant("iq2_xxs", "if nothing larger fits: large models alone bear it"),
            Variant("iq1_m", "to see a very large model run at all"),
        ),
    ),
    Method(
        "EXL2", ("exl2",), "after training", "weights", "needed", (),
        "exllamav2 0.3.2 conversion/measure.py; no trainer loads it",
        (
            Variant("exl2-6.0bpw", "for one user on NVIDIA cards, if all of it fits on them; EXL3 is its successor"),
            Variant("exl2-4.0bpw", "as exl2-6.0bpw, smaller"),
        ),
    ),
    Method(
        "EXL3", ("exl3",), "after training", "weights", "needed", (),
        "exllamav3 conversion/convert_model.py; no trainer loads it",
        (
            Variant("exl3-6.0bpw", "for one user on NVIDIA cards: any number of bits, so that it just fits"),
            Variant("exl3-5.0bpw", "as exl3-6.0bpw, smaller"),
            Variant("exl3-4.0bpw", "as good as 4.5 bits of others, for one user on NVIDIA cards"),
            Variant("exl3-3.0bpw", "if 4 bits do not fit: trellis codes lose less here than grids"),
            Variant("exl3-2.25bpw", "the least that large models bear"),
        ),
    ),
    Method(
        "MLX", ("mlx",), "after training", "weights", "none", ("LoRA (mlx_lm.lora)", "DoRA (mlx_lm.lora)"),
        "mlx-lm mlx_lm/tuner/lora.py: LoRALinear.from_base takes QuantizedLinear",
        (
            Variant("mlx8", "on Apple's chips, if it fits: next to nothing is lost"),
            Variant("mlx6", "on Apple's chips, between mlx8 and mlx4"),
            Variant("mlx4", "the usual 4 bits on Apple's chips"),
            Variant("mlx-mxfp4", "on Apple's chips, for models that were trained for MXFP4"),
        ),
    ),
    Method(
        "MLC", ("mlc",), "after training", "weights", "none", (),
        "mlc-llm python/mlc_llm/quantization/quantization.py; no trainer loads it",
        (Variant("q4f16_1", "in browsers, on phones, and wherever MLC-LLM compiles for"),),
    ),
)  # fmt: skip


def method_of(name: str | None) -> Method:
    """The method that a format of the table belongs to.

    Raises
    ------
    KeyError
        If the table has no such format.
    """
    for method in METHODS:
        if any(variant.name == name for variant in method.variants):
            return method
    raise KeyError(name)


def method_of_recipe(method: str) -> Method | None:
    """What a checkpoint's quantization method is; None if that is not known."""
    return next((one for one in METHODS if method in one.recipes), None)
