"""Which recipe a config asks for, and which one a user names."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import import_module
from typing import Any

from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.file_types import BASES
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
    "mlc": "mlc",
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
_FINE = {**_GROUPED, "group_size": 32}
_NVFP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}

#: Targets of producers who leave attention in 16 bits: all of the MLPs, or routed experts alone.
_MLPS = r"re:.*\.(mlp|feed_forward|ffn|block_sparse_moe|moe|experts|shared_expert)\..*"
_EXPERTS = r"re:.*\.experts\..*"


def _one_group(
    weights: dict[str, Any], activations: dict[str, Any] | None = None, target: str = "Linear"
) -> dict[str, Any]:
    """A compressed-tensors config of one group over all linears but the head."""
    group = {"targets": [target], "weights": weights, "input_activations": activations}
    return {"config_groups": {"group_0": group}, "ignore": ["lm_head", "re:.*(visual|vision|audio|tower).*"]}


#: What a user may name -> (method, its config).
NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "fp8": ("fp8", {}),
    "fp8-block": ("fp8", {"weight_block_size": [128, 128]}),
    "fp8-dynamic": (
        "compressed-tensors",
        _one_group(
            {"num_bits": 8, "type": "float", "strategy": "channel"},
            {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True},
        ),
    ),
    "fp8-static": (
        "compressed-tensors",
        _one_group(
            {"num_bits": 8, "type": "float", "strategy": "tensor"},
            {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False},
        ),
    ),
    "mxfp8": ("fp8", {"quant_method": "mxfp8"}),
    "int8": (
        "compressed-tensors",
        _one_group(
            {"num_bits": 8, "type": "int", "strategy": "channel"},
            {"num_bits": 8, "type": "int", "dynamic": True},
        ),
    ),
    "w4a16": ("compressed-tensors", _one_group(_GROUPED)),
    "w4a16-g32": ("compressed-tensors", _one_group(_FINE)),
    "w4a16-experts": ("compressed-tensors", _one_group(_FINE, target=_EXPERTS)),
    "int4": ("compressed-tensors", _one_group(_GROUPED)),
    "w8a16": ("compressed-tensors", _one_group({**_GROUPED, "num_bits": 8})),
    "awq": ("awq", {}),
    "awq-g32": ("awq", {"group_size": 32}),
    "gptq": ("gptq", {}),
    "gptq-int4": ("gptq", {}),
    "gptq-g32": ("gptq", {"group_size": 32}),
    "gptq-int2": ("gptq", {"bits": 2}),
    "gptq-int3": ("gptq", {"bits": 3}),
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
    "nvfp4-mlp": ("compressed-tensors", _one_group(_NVFP4, {"dynamic": "local"}, _MLPS)),
    "nvfp4-experts": ("compressed-tensors", _one_group(_NVFP4, {"dynamic": "local"}, _EXPERTS)),
    "aqlm": ("aqlm", {}),
    "aqlm-1x16": ("aqlm", {}),
    "aqlm-2x8": ("aqlm", {"num_codebooks": 2, "nbits_per_codebook": 8}),
    "eetq": ("eetq", {}),
    "quanto-int8": ("quanto", {"weights": "int8"}),
    "quanto-int4": ("quanto", {"weights": "int4"}),
    "torchao-int4": ("torchao", {"quant_type": "int4_weight_only"}),
    "torchao-int8": ("torchao", {"quant_type": "int8_weight_only"}),
    "torchao-fp8": ("torchao", {"quant_type": "float8_weight_only"}),
    "fbgemm-fp8": ("fbgemm_fp8", {}),
    "bitnet": ("bitnet", {}),
    "chatglm-int8": ("chatglm", {"quantization_bit": 8}),
    "chatglm-int4": ("chatglm", {"quantization_bit": 4}),
    "hqq": ("hqq", {"nbits": 4}),  # HQQ's and transformers' default
    **{f"hqq{bits}": ("hqq", {"nbits": bits}) for bits in (1, 2, 3, 4, 8)},
    **{f"mlx{bits}": ("mlx", {"bits": bits, "group_size": 64}) for bits in (2, 3, 4, 5, 6, 8)},
    **{
        f"mlx{bits}-g{group}": ("mlx", {"bits": bits, "group_size": group})
        for bits in (2, 3, 4, 5, 6, 8)
        for group in (32, 128)
    },
    "q3f16_0": ("mlc", {"bits": 3, "group_size": 40, "dtype": "fp16"}),
    "q3f16_1": ("mlc", {"bits": 3, "group_size": 40, "dtype": "fp16"}),
    "q4f16_0": ("mlc", {"dtype": "fp16"}),
    "q4f16_1": ("mlc", {"dtype": "fp16"}),
    "q4f16_2": ("mlc", {"dtype": "fp16", "ends": False}),
    "q4f16_ft": ("mlc", {"dtype": "fp16", "layout": "ft"}),
    "q4f32_1": ("mlc", {"dtype": "fp32"}),
    "q4bf16_0": ("mlc", {"dtype": "bf16"}),
    "q4bf16_1": ("mlc", {"dtype": "bf16"}),
    "mlx-mxfp4": ("mlx", {"bits": 4, "group_size": 32, "mode": "mxfp4"}),
    "mlx-mxfp8": ("mlx", {"bits": 8, "group_size": 32, "mode": "mxfp8"}),
    "mlx-nvfp4": ("mlx", {"bits": 4, "group_size": 16, "mode": "nvfp4"}),
}

#: What a name may mean as well, since producers differ in what they leave in 16 bits and in group sizes: the largest
#: reading for a dense model and for one with routed experts.
_READINGS: dict[str, tuple[str, str]] = {
    "awq": ("awq-g32", "w4a16-experts"),
    "gptq": ("gptq-g32", "w4a16-experts"),
    "gptq-int4": ("gptq-g32", "w4a16-experts"),
    "int4": ("w4a16-g32", "w4a16-experts"),
    "nvfp4": ("nvfp4-mlp", "nvfp4-experts"),
    "w4a16": ("w4a16-g32", "w4a16-experts"),
}

#: What may be meant by words that leave the method open.
_MEANT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("4bit", "4-bit", "q4"), ("nf4", "awq", "gptq", "mlx4", "q4_k_m")),
    **dict.fromkeys(("8bit", "8-bit", "q8"), ("bnb-int8", "fp8", "gptq-int8", "mlx8", "q8_0")),
    **dict.fromkeys(("bitsandbytes", "bnb", "llm.int8"), ("nf4", "nf4-double", "fp4", "bnb-int8")),
    **dict.fromkeys(("gguf", "ggml"), ("q4_k_m", "q5_k_m", "q8_0")),
    "mlx": ("mlx4", "mlx8", "mlx-mxfp4"),
}

#: Group sizes that producers take, the usual one first.
_GROUPS = (128, 64, 32)

#: Dtypes by their short names.
_PLAIN = ("bf16", "f16", "f32", "fp16", "fp32")

#: MLC's names of what is not quantized.
_UNQUANTIZED = {"q0f16": "fp16", "q0bf16": "bf16", "q0f32": "fp32"}

_EXL_EXAMPLES = ("exl2-4.0bpw", "exl3-4.0bpw")
_EXL = re.compile(r"^(exl[23])-([0-9]+(?:\.[0-9]+)?)(?:bpw)?(?:[-_]h([0-9]))?$")


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
    """The recipe that a user names: a dtype or a method.

    Parameters
    ----------
    text
        `bf16`, `fp8`, `awq`, `nf4`, `w4a16`, `exl3-4.0bpw`, ... File types of llama.cpp are no recipe for a
        checkpoint's tensors, for its converter writes others (`willfit.conversion`).
    dtype
        The dtype of what the method leaves alone.
    architecture
        The model: its widths decide about group sizes.

    Raises
    ------
    BadInput
        If nothing is called that; the hint has the nearest names.
    """
    key = text.strip().lower()
    if key in NAMED:
        method, fields = NAMED[key]
        recipe = replace(_from_config(method, Config(fields, f"format {key}"), dtype), named=True)
        return recipe if architecture is None else _with_dividing_groups(recipe, key, dtype, architecture)
    if found := _EXL.match(key):
        fields = {"quant_method": found.group(1), "bits": float(found.group(2))}
        if found.group(3):
            fields["head_bits"] = int(found.group(3))
        return _from_config(found.group(1), Config(fields, f"format {key}"), dtype)
    try:
        return plain_recipe(dtype_name(_UNQUANTIZED.get(key, key)))
    except BadInput:
        known = list(dict.fromkeys([*NAMED, *_PLAIN, *_UNQUANTIZED, *_EXL_EXAMPLES, *map(str.lower, BASES)]))
        from difflib import get_close_matches

        begun = sorted((name for name in known if name.startswith(key)), key=lambda name: "4" not in name)
        close = list(
            dict.fromkeys([*_MEANT.get(key, begun), *get_close_matches(key, known, n=3, cutoff=0.5)])
        )[:5]
        hint = f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(known)}"
        raise BadInput(f"unknown format {text!r}", hint) from None


def other_reading(text: str, architecture: Architecture) -> str | None:
    """The largest other reading of a format that a repository's name says; None where the name says it all.

    Producers' `NVFP4` and `AWQ` repositories differ: all linears, MLPs alone, or routed experts alone; groups of 128
    or of 32. The reading that is taken (`recipe_named`) is the smallest.
    """
    routed = any(layer.feed_forward and layer.feed_forward.experts for layer in architecture.layers)
    found = _READINGS.get(text.strip().lower())
    return found[routed] if found else None


def _with_dividing_groups(recipe: Recipe, key: str, dtype: str, architecture: Architecture) -> Recipe:
    """Smaller groups where the usual ones do not divide a width: no quantizer has a part of a group.

    cyankiwi/gemma-4-26B-A4B-it-AWQ-4bit has groups of 32 in experts of 704 inputs, others have 64.
    """
    method, fields = NAMED[key]
    usual = _GROUPS[0]
    groups = fields.get("config_groups", {}).get("group_0", {})
    weights = groups.get("weights", {})
    if method not in ("awq", "gptq") and weights.get("group_size") != usual:
        return recipe
    if fields.get("group_size", usual) != usual:
        return recipe
    widths = {
        tensor.shape[-1]
        for layer, _ in architecture.blocks
        for tensor in layer.tensors
        if tensor.kind == "linear" and tensor.part in ("attention", "mlp", "experts", "mixer")
    }
    size = next((group for group in _GROUPS if not any(width % group for width in widths)), usual)
    if size == usual:
        return recipe
    if weights:
        group = {**groups, "weights": {**weights, "group_size": size}}
        fields = {**fields, "config_groups": {"group_0": group}}
    else:
        fields = {**fields, "group_size": size}
    changed = _from_config(method, Config(fields, f"format {key}"), dtype)
    note = f"groups of {usual} do not divide every width of this model: sized with groups of {size}"
    return replace(changed, named=True, notes=(*changed.notes, note))


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
    if "mlx" in quant or quant.raw("mode") in ("affine", "mxfp4", "mxfp8", "nvfp4"):
        return "mlx"
    if quant.raw("load_in_4bit") or quant.raw("load_in_8bit"):
        return "bitsandbytes"
    if quant.raw("w_bit") is not None:
        return "awq"
    return "gptq" if "desc_act" in quant else ""
