"""Which recipe a config asks for, and which one a user names."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import import_module
from typing import Any

from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.formats.recipe import Recipe, plain_recipe
from willfit.quantities import dtype_name

#: `quant_method` -> module in `recipes/`.
METHODS: dict[str, str] = {
    "aqlm": "aqlm",
    "auto-round": "auto_round",
    "auto_round": "auto_round",
    "autoround": "auto_round",
    "intel/auto-round": "auto_round",
    "awq": "awq",
    "awq_marlin": "awq",
    "bitnet": "bitnet",
    "bitsandbytes": "bitsandbytes",
    "chatglm": "chatglm",
    "compressed-tensors": "compressed_tensors",
    "compressed_tensors": "compressed_tensors",
    "eetq": "eetq",
    "exl2": "exl",
    "exl3": "exl",
    "fbgemm_fp8": "fbgemm",
    "fp8": "fp8",
    "gptq": "gptq",
    "gptq_marlin": "gptq",
    "hqq": "hqq",
    "mlx": "mlx",
    "modelopt": "modelopt",
    "modelopt_fp4": "modelopt",
    "modelopt_mixed": "modelopt",
    "mxfp4": "mxfp4",
    "mxfp8": "fp8",
    "quanto": "quanto",
    "quark": "quark",
    "torchao": "torchao",
}

#: `quantization` is MLX's, which repeats it as `quantization_config` without naming a method.
_FIELDS = ("quantization", "quantization_config", "compression_config", "hf_quant_config", "quantize_config")
_SECTIONS = ("text_config", "llm_config", "language_config", "thinker_config")

_GROUPED = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}


def _one_group(weights: dict[str, Any], activations: dict[str, Any] | None = None) -> dict[str, Any]:
    """A compressed-tensors config of one group over all linears but the head."""
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    return {"config_groups": {"group_0": group}, "ignore": ["lm_head", "re:.*(visual|vision|audio|tower).*"]}


#: What a user may name -> (method, its config).
NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "fp8": ("fp8", {}),
    "fp8-block": ("fp8", {"weight_block_size": [128, 128]}),
    "mxfp8": ("fp8", {"quant_method": "mxfp8"}),
    "int8": (
        "compressed-tensors",
        _one_group(
            {"num_bits": 8, "type": "int", "strategy": "channel"},
            {"num_bits": 8, "type": "int", "dynamic": True},
        ),
    ),
    "w4a16": ("compressed-tensors", _one_group(_GROUPED)),
    "int4": ("compressed-tensors", _one_group(_GROUPED)),
    "w8a16": ("compressed-tensors", _one_group({**_GROUPED, "num_bits": 8})),
    "awq": ("awq", {}),
    "gptq": ("gptq", {}),
    "gptq-int4": ("gptq", {}),
    "gptq-int8": ("gptq", {"bits": 8}),
    "nf4": ("bitsandbytes", {"bnb_4bit_quant_type": "nf4"}),
    "nf4-double": ("bitsandbytes", {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}),
    "fp4": ("bitsandbytes", {"bnb_4bit_quant_type": "fp4"}),
    "bnb-int8": ("bitsandbytes", {"load_in_8bit": True}),
    "mxfp4": (
        "compressed-tensors",
        _one_group({"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}),
    ),
    "nvfp4": ("modelopt", {"quant_algo": "NVFP4"}),
    "aqlm": ("aqlm", {}),
    "aqlm-1x16": ("aqlm", {}),
    "aqlm-2x8": ("aqlm", {"num_codebooks": 2, "nbits_per_codebook": 8}),
    "eetq": ("eetq", {}),
    "quanto-int8": ("quanto", {"weights": "int8"}),
    "quanto-int4": ("quanto", {"weights": "int4"}),
    "torchao-int4": ("torchao", {"quant_type": "int4_weight_only"}),
    "torchao-int8": ("torchao", {"quant_type": "int8_weight_only"}),
    "bitnet": ("bitnet", {}),
    "chatglm-int8": ("chatglm", {"quantization_bit": 8}),
    "chatglm-int4": ("chatglm", {"quantization_bit": 4}),
    **{f"hqq{bits}": ("hqq", {"nbits": bits}) for bits in (1, 2, 3, 4, 8)},
    **{f"mlx{bits}": ("mlx", {"bits": bits, "group_size": 64}) for bits in (2, 3, 4, 5, 6, 8)},
}

#: Dtypes that are file types of llama.cpp, too: without `gguf-` before them they mean the dtype.
_PLAIN = ("bf16", "f16", "f32", "fp16", "fp32")

_EXL_EXAMPLES = ("exl2-4.0bpw", "exl3-4.0bpw")
_EXL = re.compile(r"^(exl[23])-([0-9]+(?:\.[0-9]+)?)bpw$")


def recipe_for(config: Config, dtype: str) -> Recipe:
    """The recipe of a checkpoint.

    Parameters
    ----------
    config
        The model's config.json; a separate quantization file is merged under the key of its name
        (`hf_quant_config`, `quantize_config`).
    dtype
        The dtype of what is not quantized.

    Raises
    ------
    BadInput
        If a quantization method is named that is not known, or its settings make no sense.
    """
    quant = _quantization(config)
    if quant is None:
        return plain_recipe(dtype)
    method = _method(quant)
    if method in METHODS:
        return _from_config(method, quant, dtype)
    if quant.raw("bits", "nbits", "w_bit") is not None:
        return _from_config("", quant, dtype)
    raise BadInput(
        f"{quant.where}: unknown quantization method {method or '(none named)'!r}",
        f"known: {', '.join(METHODS)}; or name the format yourself",
    )


def recipe_named(text: str, dtype: str, architecture: Architecture | None = None) -> Recipe:
    """The recipe that a user names: a dtype, a method, or a file type of llama.cpp.

    Parameters
    ----------
    text
        `bf16`, `fp8`, `awq`, `nf4`, `w4a16`, `exl3-4.0bpw`, `q8_0`, ...
    dtype
        The dtype of what the method leaves alone.
    architecture
        The model. A file type of llama.cpp mixes tensor types by layer and role, so it needs to know it.

    Raises
    ------
    BadInput
        If nothing is called that, or a file type is named without a model; the hint has the nearest names.
    """
    key = text.strip().lower()
    if key in NAMED:
        method, fields = NAMED[key]
        return _from_config(method, Config(fields, f"format {key}"), dtype)
    if found := _EXL.match(key):
        fields = {"quant_method": found.group(1), "bits": float(found.group(2))}
        return _from_config(found.group(1), Config(fields, f"format {key}"), dtype)
    file_types = import_module("willfit.formats.recipes.gguf_mix")
    kind = key.removeprefix("gguf-").upper()
    if kind in file_types.BASES and key not in _PLAIN:
        if architecture is None:
            raise BadInput(f"the file type {text!r} needs a model", "it mixes tensor types by layer")
        mixed: Recipe = file_types.gguf_mix(kind, architecture)
        return mixed
    try:
        return plain_recipe(dtype_name(key))
    except BadInput:
        known = list(dict.fromkeys([*NAMED, *_PLAIN, *_EXL_EXAMPLES, *map(str.lower, file_types.BASES)]))
        from difflib import get_close_matches

        close = get_close_matches(key, known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(known)}"
        raise BadInput(f"unknown format {text!r}", hint) from None


def _from_config(method: str, quant: Config, dtype: str) -> Recipe:
    module = import_module(f"willfit.formats.recipes.{METHODS.get(method, 'grouped')}")
    recipe: Recipe = module.from_config(quant, dtype)
    return replace(recipe, method=method)


def _quantization(config: Config) -> Config | None:
    """The quantization settings of a config, wherever it keeps them."""
    for view in (config, *(section for name in _SECTIONS if (section := config.section(name)))):
        for field in _FIELDS:
            if isinstance(view.raw(field), dict) and (quant := view.section(field)) and quant.fields:
                added = {"mlx": True} if field == "quantization" else {}
                if "expert_dtype" in config:
                    added["expert_dtype"] = config.raw("expert_dtype")
                return Config({**quant.fields, **added}, quant.where) if added else quant
    bits = config.raw("quantization_bit")  # ChatGLM; 0 where nothing is quantized
    if isinstance(bits, int) and bits > 0:
        return Config({"quant_method": "chatglm", "quantization_bit": bits}, config.where)
    return None


def _method(quant: Config) -> str:
    """The name of the method; some files leave it out and are known by their fields."""
    if named := quant.text("quant_method", default="").lower():
        return named
    inner = quant.section("quantization") or quant
    if "quant_algo" in inner:
        return "modelopt"
    if "config_groups" in quant:
        return "compressed-tensors"
    if "mlx" in quant or quant.raw("mode") in ("affine", "mxfp4", "nvfp4"):
        return "mlx"
    if quant.raw("load_in_4bit") or quant.raw("load_in_8bit"):
        return "bitsandbytes"
    if quant.raw("w_bit") is not None:
        return "awq"
    return "gptq" if "desc_act" in quant else ""
