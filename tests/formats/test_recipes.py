"""Recipes from quantization configs: which tensor ends in which format."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from willfit.architectures.build import build
from willfit.architectures.model import Architecture, Part, Tensor
from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.formats.recipe import Recipe
from willfit.formats.recognise import METHODS, NAMED, other_reading, recipe_for, recipe_named
from willfit.formats.weights import weight_bytes


def recipe(method: str = "", dtype: str = "bf16", **fields: Any) -> Recipe:
    quant = {**({"quant_method": method} if method else {}), **fields}
    return recipe_for(Config({"quantization_config": quant}), dtype)


def stored(made: Recipe, name: str, part: Part = "mlp", shape: tuple[int, ...] = (4096, 4096)) -> str:
    kind = "embedding" if part == "embedding" else "norm" if part == "norm" else "linear"
    return made.format_of(name, Tensor(name, shape, part, kind)).name


UP = "model.layers.3.mlp.up_proj.weight"


def test_a_config_without_quantization_is_plain() -> None:
    made = recipe_for(Config({"hidden_size": 8}), "bf16")
    assert (made.name, made.by_layer, stored(made, UP)) == ("bf16", False, "bf16")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"method": "awq", "bits": 4, "group_size": 128}, "awq int4 g128"),
        ({"method": "gptq", "bits": 4, "group_size": 32}, "gptq int4 g32"),
        ({"method": "gptq", "bits": 8, "group_size": -1}, "gptq int8 per channel"),
        ({"method": "fp8", "weight_block_size": [128, 128]}, "fp8 block 128x128"),
        ({"method": "fp8", "weight_block_size": None, "activation_scheme": "static"}, "fp8 per tensor"),
        ({"method": "mxfp8"}, "mxfp8 g32"),
        ({"method": "fbgemm_fp8"}, "fbgemm fp8 per channel"),
        ({"method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4"),
        ({"method": "bitsandbytes", "load_in_8bit": True}, "llm.int8"),
        ({"method": "auto-round", "bits": 4, "group_size": 128}, "gptq int4 g128"),
        (
            {"method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 3, "group_size": 64}}},
            "hqq int3 g64",
        ),
        ({"method": "aqlm", "num_codebooks": 2, "nbits_per_codebook": 8}, "aqlm 2x8"),
        ({"method": "exl3", "bits": 3.5}, "exl3 3.5 bpw"),
        ({"method": "bitnet"}, "bitnet"),
        ({"method": "quanto", "weights": "int4"}, "quanto int4 g128"),
        (
            {
                "method": "torchao",
                "quant_type": {"default": {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 64}}},
            },
            "torchao int4 g64",
        ),
        ({"quant_algo": "FP8", "ignore": ["lm_head"]}, "fp8 per tensor"),
        (
            {"method": "quark", "global_quant_config": {"weight": {"dtype": "fp4", "group_size": 32}}},
            "mxfp4",
        ),
        ({"method": "secret", "bits": 5, "group_size": 64}, "secret int5 g64"),
    ],
)
def test_the_format_of_a_decoder_linear(fields: dict[str, Any], expected: str) -> None:
    made = recipe(**fields)
    assert stored(made, UP) == expected
    assert stored(made, "model.embed_tokens.weight", "embedding") in ("bf16", "fp16")
    assert stored(made, "model.layers.3.mlp.gate.weight", "router") in ("bf16", "fp16")
    assert stored(made, "model.norm.weight", "norm", (4096,)) in ("bf16", "fp16")


def test_every_method_has_a_module_with_from_config() -> None:
    from importlib import import_module

    for module in {*METHODS.values(), "grouped"}:
        assert callable(import_module(f"willfit.formats.recipes.{module}").from_config)


@pytest.mark.parametrize("name", [*NAMED, "bf16", "fp16", "fp32", "exl2-4.25bpw", "exl3-3.0bpw"])
def test_every_named_format_sizes_a_linear(name: str) -> None:
    made = recipe_named(name, "bf16")
    assert made.format_of(UP, Tensor(UP, (4096, 4096), "mlp")).bytes((4096, 4096)) > 0


@pytest.mark.parametrize(("wrong", "near"), [("awk", "awq"), ("nvfp", "nvfp4"), ("exl3-4bit", "exl3-4.0bpw")])
def test_an_unknown_name_has_its_neighbours_in_the_hint(wrong: str, near: str) -> None:
    with pytest.raises(BadInput) as caught:
        recipe_named(wrong, "bf16")
    assert near in caught.value.hint


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(BadInput, match="'alchemy'"):
        recipe("alchemy")


def test_gptq_overrides_in_order() -> None:
    made = recipe(
        "gptq",
        bits=4,
        group_size=128,
        dynamic={
            r"-:.*\.mlp\.down_proj": {},
            r"+:.*\.layers\.[0-1]\.": {"bits": 8, "group_size": 64},
            r".*q_proj": {"bits": 2},
        },
    )
    assert stored(made, "model.layers.0.mlp.down_proj.weight") == "bf16"
    assert stored(made, "model.layers.1.self_attn.q_proj.weight", "attention") == "gptq int8 g64"
    assert stored(made, "model.layers.2.self_attn.q_proj.weight", "attention") == "gptq int2 g128"
    assert stored(made, "model.layers.2.mlp.up_proj.weight") == "gptq int4 g128"


def test_auto_round_leaves_modules_of_16_bits() -> None:
    extra = {"model.layers.3.mlp.up_proj": {"bits": 16}, "model.layers.4.mlp.up_proj": {"bits": 8}}
    made = recipe("auto-round", bits=4, group_size=128, extra_config=extra)
    assert stored(made, UP) == "bf16"
    assert stored(made, "model.layers.4.mlp.up_proj.weight") == "gptq int8 g128"


def test_int4_leaves_matrices_that_cannot_be_packed() -> None:
    assert stored(recipe("awq"), UP, shape=(4, 4096)) == "bf16"
    assert stored(recipe("gptq"), UP, shape=(4096, 100)) == "bf16"


def test_compressed_tensors_groups_targets_and_ignore() -> None:
    int4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}
    fp8 = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True}
    made = recipe(
        "compressed-tensors",
        format="mixed-precision",
        config_groups={
            "group_0": {"targets": ["re:.*experts.*"], "weights": int4, "format": "pack-quantized"},
            "group_1": {"targets": ["Linear"], "weights": fp8, "input_activations": {"dynamic": True}},
        },
        ignore=["lm_head", "re:.*self_attn.*"],
        kv_cache_scheme={"num_bits": 8, "type": "float"},
    )
    assert stored(made, "model.layers.0.mlp.experts.{expert}.up_proj.weight", "experts") == "w4a16 g32"
    assert stored(made, UP) == "fp8 per channel"
    assert stored(made, "model.layers.0.self_attn.q_proj.weight", "attention") == "bf16"
    assert stored(made, "lm_head.weight", "head") == "bf16"
    assert made.kv_cache_dtype == "fp8_e4m3"


@pytest.mark.parametrize(
    ("weights", "activations", "expected"),
    [
        ({"num_bits": 8, "type": "int", "strategy": "channel"}, {"dynamic": True}, "int8 per channel"),
        ({"num_bits": 8, "type": "int", "strategy": "group", "group_size": 128}, None, "w8a16 g128"),
        ({"num_bits": 8, "type": "float", "strategy": "tensor"}, {"dynamic": False}, "fp8 per tensor"),
        ({"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]}, None,
         "fp8 block 128x128"),
        ({"num_bits": 8, "type": "float", "strategy": "block", "block_structure": "128x64"}, None,
         "fp8 block 128x64"),
        ({"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}, {"dynamic": "local"},
         "nvfp4"),
        ({"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}, None, "nvfp4 w4a16"),
        ({"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}, None, "mxfp4"),
    ],
)  # fmt: skip
def test_compressed_tensors_schemes(
    weights: dict[str, Any], activations: dict[str, Any] | None, expected: str
) -> None:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    assert stored(recipe("compressed-tensors", config_groups={"group_0": group}), UP) == expected


def test_modelopt_mixed_precision_looks_up_parents_and_first_experts() -> None:
    made = recipe_for(
        Config(
            {
                "hf_quant_config": {
                    "quantization": {
                        "quant_algo": "MIXED_PRECISION",
                        "kv_cache_quant_algo": "FP8",
                        "quantized_layers": {
                            "backbone.layers.0.mixer.in_proj": {"quant_algo": "FP8"},
                            "backbone.layers.1.mixer.experts.0.up_proj": {
                                "quant_algo": "W4A16_NVFP4",
                                "group_size": 16,
                            },
                            "model.language_model.layers.2.mlp.experts": {"quant_algo": "NVFP4"},
                        },
                    }
                }
            }
        ),
        "bf16",
    )
    assert made.kv_cache_dtype == "fp8_e4m3"
    assert stored(made, "backbone.layers.0.mixer.in_proj.weight", "mixer") == "fp8 per tensor"
    assert stored(made, "backbone.layers.0.mixer.out_proj.weight", "mixer") == "bf16"
    routed = "backbone.layers.1.mixer.experts.{expert}.up_proj.weight"
    assert stored(made, routed, "experts") == "nvfp4 w4a16"
    fused = "model.language_model.layers.2.mlp.experts.gate_up_proj"
    assert stored(made, fused, "experts", (8, 512, 1024)) == "nvfp4"


def test_bitsandbytes_quantizes_linears_alone() -> None:
    made = recipe("bitsandbytes", load_in_4bit=True)
    assert stored(made, "lm_head.weight", "head") == "bf16"
    assert stored(made, "visual.blocks.{layer}.mlp.fc1.weight", "vision") == "fp4"
    assert stored(made, "model.layers.0.mlp.experts.gate_up_proj", "experts", (8, 512, 1024)) == "bf16"


def _widths(name: str) -> Architecture:
    entry = find(name)
    assert entry is not None
    return build(Config(entry.config))


def test_named_groups_divide_every_width() -> None:
    """Experts of Gemma 4 have 704 inputs, 5.5 groups of 128: producers take 64 or 32."""
    gemma, llama = _widths("google/gemma-4-26B-A4B-it"), _widths("meta-llama/Llama-3.1-8B")
    for name, words in (("awq", "awq int4 g64"), ("w4a16", "w4a16 g64"), ("gptq", "gptq int4 g64")):
        made = recipe_named(name, "bf16", gemma)
        assert (made.name, len(made.notes)) == (words, 1)
        assert recipe_named(name, "bf16", llama).name == words.replace("64", "128")


def test_a_name_has_a_larger_reading() -> None:
    mixture, dense = _widths("Qwen/Qwen3-30B-A3B"), _widths("Qwen/Qwen3-8B")
    assert other_reading("nvfp4", mixture) == "nvfp4-experts"
    assert other_reading("fp8", dense) is None
    for architecture in (mixture, dense):
        for name in ("awq", "gptq-int4", "w4a16", "nvfp4"):
            other = other_reading(name, architecture)
            assert other is not None
            sizes = [
                weight_bytes(architecture, recipe_named(text, "bf16", architecture)) for text in (name, other)
            ]
            assert sizes[0] < sizes[1] < architecture.parameters * 2


def test_chatglm_says_how_many_bits_its_layers_have() -> None:
    made = recipe_for(Config({"quantization_bit": 4}), "fp16")
    assert stored(made, "transformer.encoder.layers.0.mlp.dense_h_to_4h.weight") == "chatglm int4 per channel"
    assert stored(made, "transformer.output_layer.weight", "head") == "fp16"
    # Two weights a byte and an fp16 scale for each row.
    assert made.format_of(UP, Tensor(UP, (4096, 1024), "mlp", "linear")).bytes((4096, 1024)) == 2097152 + 8192
    assert recipe_for(Config({"quantization_bit": 0}), "fp16").name == "fp16"
    with pytest.raises(BadInput, match="expected 4 or 8"):
        recipe_for(Config({"quantization_bit": 3}), "fp16")


def test_buffers_keep_their_own_dtype() -> None:
    bias = Tensor("model.layers.{layer}.mlp.gate.e_score_correction_bias", (256,), "router", "buffer")
    positions = Tensor("embeddings.position_ids", (1, 512), "embedding", "buffer")
    made = recipe_named("bf16", "bf16")
    assert made.format_of(bias.name, bias).name == "fp32"
    assert made.format_of(positions.name, positions).name == "int64"


def test_mlx_names_itself_by_its_field_and_overrides_modules() -> None:
    settings = {"group_size": 64, "bits": 4, "model.layers.0.mlp.gate": {"group_size": 64, "bits": 8}}
    made = recipe_for(
        Config({"quantization": {**settings, "lm_head": False}, "quantization_config": settings}), "bf16"
    )
    assert stored(made, UP) == "mlx int4 g64"
    assert stored(made, "model.embed_tokens.weight", "embedding") == "mlx int4 g64"
    assert stored(made, "model.layers.0.mlp.gate.weight", "router") == "mlx int8 g64"
    assert stored(made, "lm_head.weight", "head") == "bf16"


def test_mlc_names_say_all() -> None:
    made = recipe_named("q4f16_1", "bf16")
    assert stored(made, UP) == stored(made, "lm_head.weight", "head") == "mlc int4 g32"
    assert stored(made, "model.norm.weight", "norm", (4096,)) == "fp16"
    assert stored(made, "model.layers.3.mlp.gate.weight", "router", (128, 4096)) == "fp16"
    assert stored(made, "model.layers.3.mlp.gate.weight", "router", (384, 4096)) == "mlc int4 g32"
    assert stored(recipe_named("q3f16_1", "bf16"), UP) == "mlc int3 g40"
    assert stored(recipe_named("q4f16_2", "bf16"), "lm_head.weight", "head") == "fp16"
    rows = recipe_named("q4f16_ft", "bf16")
    assert stored(rows, UP) == "mlc int4 per channel"
    assert stored(rows, "lm_head.weight", "head") == "mlc int4 g32"
    assert stored(rows, "model.layers.3.mlp.experts.{expert}.up_proj.weight", "experts") == "fp16"
    assert recipe_named("q0f16", "bf16").name == "fp16"


def test_hqq_tags_and_quark_layers() -> None:
    params = {"weight_quant_params": {"nbits": 2, "group_size": 16}}
    made = recipe("hqq", quant_config={"mlp.up_proj": params}, skip_modules=["lm_head"])
    assert stored(made, UP) == "hqq int2 g16"
    assert stored(made, "model.layers.3.mlp.down_proj.weight") == "bf16"
    made = recipe(
        "quark",
        global_quant_config={"weight": {"dtype": "fp8_e4m3", "qscheme": "per_tensor"}},
        layer_quant_config={"*down_proj": {"weight": {"dtype": "fp4", "qscheme": "per_group"}}},
        exclude=["lm_head"],
    )
    assert stored(made, UP) == "fp8 per tensor"
    assert stored(made, "model.layers.3.mlp.down_proj.weight") == "mxfp4"
    assert stored(made, "lm_head.weight", "head") == "bf16"


def test_fp8_checkpoints_with_fp4_experts() -> None:
    config = {
        "expert_dtype": "fp4",
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "ue8m0"},
    }
    made = recipe_for(Config(config), "bf16")
    assert stored(made, "layers.{layer}.ffn.experts.{expert}.w1.weight", "experts") == "mxfp4"
    attention = Tensor("layers.0.attn.wq_a.weight", (1024, 4096), "attention")
    # 8 x 32 blocks, each with an exponent of one byte
    assert made.format_of(attention.name, attention).bytes(attention.shape) == 1024 * 4096 + 8 * 32


def test_quantization_inside_the_text_config_is_found() -> None:
    inner = {"quant_method": "awq", "bits": 4, "group_size": 64}
    made = recipe_for(Config({"text_config": {"quantization_config": inner}}), "fp16")
    assert stored(made, UP) == "awq int4 g64"


@pytest.mark.parametrize(
    "fields",
    [
        {"quant_method": "fp8", "weight_block_size": [128]},
        {"quant_method": "fp8", "weight_block_size": [0, 128]},
        {"quant_method": "gptq", "dynamic": {"-:(": {}}},
        {"quant_method": "compressed-tensors"},
        {"quant_method": "compressed-tensors", "config_groups": {"group_0": {}}},
        {"quant_method": "modelopt", "quant_algo": "MAGIC"},
        {"quant_method": "torchao"},
        {"quant_method": "awq", "bits": "four"},
        {"quant_method": "awq", "bits": 0},
        {"quant_method": "gptq", "bits": 40},
        {"quant_method": "aqlm", "nbits_per_codebook": 100000},
        {"quant_method": "exl3", "bits": -1},
        {"quant_method": 7},
        {"nothing": "known"},
    ],
)
def test_broken_settings_end_in_one_line(fields: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        recipe_for(Config({"quantization_config": fields}), "bf16")


#: Every field that a recipe reads, with values of every sort.
_FIELDS = st.sampled_from(
    [
        "bits",
        "nbits",
        "group_size",
        "weight_block_size",
        "activation_scheme",
        "dynamic",
        "mode",
        "modules_to_not_convert",
        "ignore",
        "exclude_modules",
        "config_groups",
        "format",
        "quant_algo",
        "quantization",
        "quantized_layers",
        "kv_cache_scheme",
        "kv_cache_quant_algo",
        "extra_config",
        "packing_format",
        "quant_config",
        "weights",
        "quant_type",
        "global_quant_config",
        "layer_quant_config",
        "load_in_8bit",
        "expert_dtype",
        "version",
        "moe_quant_algo",
        "num_codebooks",
        "nbits_per_codebook",
        "head_bits",
        "skip_modules",
        "targets",
        "num_bits",
        "type",
        "strategy",
        "block_structure",
        "weight",
        "dtype",
        "group_0",
        "lm_head",
    ]
)
_WORDS = ["FP8", "NVFP4", "MIXED_PRECISION", "int", "float", "re:.*", "fp4", "int4", "group", "block"]
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 300) | st.floats(allow_nan=False) | st.sampled_from(_WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_FIELDS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=400)
@given(method=st.sampled_from(list(METHODS)), fields=st.dictionaries(_FIELDS, _VALUES, max_size=8))
def test_any_settings_size_or_end_in_one_line(method: str, fields: dict[str, Any]) -> None:
    try:
        made = recipe_for(Config({"quantization_config": {"quant_method": method, **fields}}), "bf16")
    except BadInput:
        return
    for shape in ((512, 256), (3, 512, 256)):
        size = made.format_of(UP, Tensor(UP, shape, "experts")).bytes(shape)
        assert size > 0


def test_three_bits_of_gptq_are_packed_in_whole_words_of_32_rows():
    # 4096 x 4096 at 3 bits: 4096 * 3 / 32 words for each row; zero points of 32 groups, 4096 * 3 / 32 words each;
    # a scale of 2 bytes for each group and row; an index of 4 bytes for each input.
    tensor = Tensor("model.layers.0.mlp.down_proj.weight", (4096, 4096), "mlp")
    stored = recipe_named("gptq-int3", "bf16").format_of(tensor.name, tensor)
    assert stored.bytes(tensor.shape) == 4096 * 384 * 4 + 32 * 384 * 4 + 32 * 4096 * 2 + 4096 * 4
