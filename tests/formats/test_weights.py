"""Bytes of whole models against published element counts and against what vLLM's own loader allocates."""

import time

import pytest

from willfit.architectures.build import build
from willfit.architectures.model import Architecture, Layer, Split, Tensor
from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.formats.recipe import Recipe
from willfit.formats.recognise import recipe_for, recipe_named
from willfit.formats.weights import WeightLine, rank_shape, stored_elements, weight_bytes, weight_lines

#: Indices that engines do not load where activations are not ordered.
UNORDERED = frozenset({"g_idx"})


def model(name: str) -> tuple[Architecture, Recipe, dict[str, object]]:
    entry = find(name)
    assert entry is not None
    config = Config(entry.config)
    architecture = build(config)
    return architecture, recipe_for(config, architecture.dtype), entry.facts


# Parameter bytes that vLLM 0.33.0 allocates on rank 0, less 8 B of cache scales for each attention layer
# where the method has them.
@pytest.mark.parametrize(
    ("name", "form", "ranks", "loaded"),
    [
        ("meta-llama/Llama-3.1-8B", None, 1, 16060522496),
        ("meta-llama/Llama-3.1-8B", None, 2, 8030527488),
        ("meta-llama/Llama-3.1-8B", None, 8, 2008031232),
        # 8 KV heads on 16 ranks: each rank holds one
        ("meta-llama/Llama-3.1-8B", None, 16, 1037836288),
        ("meta-llama/Llama-3.1-70B", None, 4, 35278831616),
        ("meta-llama/Llama-3.1-70B", None, 16, 8989458432),
        ("Qwen/Qwen2.5-7B", None, 4, 3808114688),
        ("Qwen/Qwen3-8B-AWQ", None, 1, 6098479104),
        ("Qwen/Qwen3-8B", "gptq", 1, 6098479104),
        ("Qwen/Qwen3-8B-FP8", None, 1, 9437399328 - 36 * 8),
        ("Qwen/Qwen3-8B-FP8", None, 2, 4719008032 - 36 * 8),
        ("Qwen/Qwen3-235B-A22B-FP8", None, 4, 59186486512 - 94 * 8),
        ("deepseek-ai/DeepSeek-V3", None, 8, 85140130848),
        ("Qwen/Qwen2.5-32B-Instruct-AWQ", None, 2, 9665062912),
        ("Qwen/Qwen2.5-72B-Instruct-GPTQ-Int4", None, 2, 20799078400),
        ("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8", None, 1, 8858881024),
        ("nvidia/Qwen3-235B-A22B-NVFP4", None, 8, 16878326448 - 94 * 8),
        ("nvidia/DeepSeek-V3.1-NVFP4", None, 8, 50101967240 - 61 * 8),
        ("nvidia/Llama-3.1-70B-Instruct-FP8", None, 2, 36329509888 - 80 * 8),
        ("meta-llama/Llama-3.1-8B", "nvfp4", 1, 6027749376 - 32 * 8),
        ("openai/gpt-oss-20b", None, 1, 13761264768),
    ],
)
def test_bytes_that_vllm_loads(name: str, form: str | None, ranks: int, loaded: int) -> None:
    architecture, recipe, _ = model(name)
    if form:
        recipe = recipe_named(form, architecture.dtype)
    assert weight_bytes(architecture, recipe, mtp=False, ranks=ranks, without=UNORDERED) == loaded


def test_stored_dtypes_of_deepseek_v3() -> None:
    # the hub's count of the published safetensors files, MTP module included
    architecture, recipe, _ = model("deepseek-ai/DeepSeek-V3")
    published = {"bf16": 3918786560, "fp8_e4m3": 680571043840, "fp32": 41555600}
    assert stored_elements(architecture, recipe) == published


def test_stored_dtypes_of_glm_45() -> None:
    architecture, recipe, _ = model("zai-org/GLM-4.5")
    assert stored_elements(architecture, recipe) == {"bf16": 358337776896, "fp32": 14400}


@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen3-14B-FP8",
        "Qwen/Qwen3-235B-A22B-FP8",
        "Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8",
        "deepseek-ai/DeepSeek-R1-0528",
        "deepseek-ai/DeepSeek-V3.2-Exp",
        "MiniMaxAI/MiniMax-M2.5",
        "Qwen/Qwen3.5-35B-A3B-FP8",
        "Qwen/Qwen3-VL-8B-Instruct-FP8",
        "mistralai/Devstral-Small-2-24B-Instruct-2512",
        "zai-org/GLM-4.7-FP8",
        "zai-org/GLM-5-FP8",
    ],
)
def test_published_element_counts_with_their_scales(name: str) -> None:
    architecture, recipe, facts = model(name)
    assert sum(stored_elements(architecture, recipe).values()) == facts["params_total"]


# The hub counts packed fp4 and its fp8 scales as stored, but not scalars: two for each quantized linear.
@pytest.mark.parametrize(
    ("name", "linears"),
    [
        # 58 MoE layers of 256 experts and a shared one, 3 dense MLPs, 61 output projections of attention
        ("nvidia/DeepSeek-V3.1-NVFP4", 58 * 3 * 257 + 3 * 3 + 61),
        # 94 layers of 128 experts and four attention projections
        ("nvidia/Qwen3-235B-A22B-NVFP4", 94 * (3 * 128 + 4)),
        # 75 MoE layers of 256 experts and a shared one, 3 dense MLPs
        ("nvidia/GLM-5-NVFP4", 75 * 3 * 257 + 3 * 3),
    ],
)
def test_published_element_counts_of_nvfp4(name: str, linears: int) -> None:
    architecture, recipe, facts = model(name)
    assert sum(stored_elements(architecture, recipe).values()) - 2 * linears == facts["params_total"]


def test_published_element_count_of_a_bitsandbytes_checkpoint() -> None:
    # The hub counts every uint8 as two elements. Only the digits of the nested offsets, a JSON number in each
    # of the 224 states, are not known from the config.
    architecture, recipe, facts = model("unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit")
    counts = stored_elements(architecture, recipe)
    total = sum(counts.values()) + counts["uint8"]
    assert isinstance(facts["params_total"], int)
    assert abs(total - facts["params_total"]) <= 224 * 2 * 3


def test_a_tied_head_is_stored_once() -> None:
    architecture, recipe, _ = model("Qwen/Qwen3-0.6B")
    assert weight_bytes(architecture, recipe) == 2 * architecture.parameters


def test_equal_layers_with_different_formats_are_told_apart() -> None:
    linear = Tensor("model.layers.{layer}.mlp.up_proj.weight", (512, 256), "mlp")
    layer = Layer((linear,))
    architecture = Architecture("x", "x", 256, 8, 0, "bf16", (), (layer,) * 4, (), False)
    quant = {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.2.mlp"]}
    recipe = recipe_for(Config({"quantization_config": quant}), "bf16")
    lines = weight_lines(architecture, recipe)
    # three layers of 1 B a weight and one scale, one of 2 B a weight
    assert [(line.times, line.format.name, line.bytes) for line in lines] == [
        (3, "fp8 per tensor", 3 * (512 * 256 + 4)),
        (1, "bf16", 2 * 512 * 256),
    ]


def test_scales_divide_with_their_axis_on_a_rank() -> None:
    fp8 = recipe_named("int8", "bf16")  # one bf16 scale for each output channel
    by_rows = Tensor("model.layers.0.mlp.up_proj.weight", (1024, 512), "mlp", split=Split(0, 1024))
    by_columns = Tensor("model.layers.0.mlp.down_proj.weight", (512, 1024), "mlp", split=Split(1, 1024))
    for tensor, expected in ((by_rows, 256 * 512 + 2 * 256), (by_columns, 512 * 256 + 2 * 512)):
        stored = fp8.format_of(tensor.name, tensor)
        assert WeightLine(tensor, 1, stored, 0).on_rank(4) == expected


def test_a_fused_projection_divides_by_section() -> None:
    # 32 query heads and 2 pairs of KV heads of 128 on 4 ranks: 8 query heads and one pair on each
    fused = Tensor("qkv", (36 * 128, 64), "attention", split=Split(0, 2, ((32 * 128, 32), (4 * 128, 2))))
    assert rank_shape(fused, 4) == (8 * 128 + 2 * 128, 64)
    assert rank_shape(fused, 1) == fused.shape


@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "deepseek-ai/DeepSeek-V3", "openai/gpt-oss-120b"])
def test_plain_bytes_on_a_rank_follow_the_tensors(name: str, ranks: int) -> None:
    architecture, _, _ = model(name)
    lines = weight_lines(architecture, recipe_named("bf16", "bf16"))
    for line in lines:
        if line.tensor.kind != "buffer":
            assert line.on_rank(ranks) == 2 * line.tensor.on_rank(ranks) * line.times


@pytest.mark.parametrize(("name", "limit"), [("Qwen/Qwen3-8B", 0.0005), ("deepseek-ai/DeepSeek-V3", 0.005)])
def test_sizing_is_fast(name: str, limit: float) -> None:
    architecture, recipe, _ = model(name)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        weight_lines(architecture, recipe)
        best = min(best, time.perf_counter() - start)
    assert best < limit


# What the hub counts: logical elements of packed words (two to a byte, eight to an int32), scales one by one.
@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("unsloth/Meta-Llama-3.1-8B-Instruct-unsloth-bnb-4bit", 8243411714),
        ("unsloth/Qwen2.5-3B-Instruct-unsloth-bnb-4bit", 3166608872),
        ("unsloth/Qwen2.5-VL-7B-Instruct-unsloth-bnb-4bit", 8496601084),
        ("unsloth/phi-4-bnb-4bit", 15086495998),
        ("cyankiwi/gemma-4-26B-A4B-it-qat-AWQ-INT4", 26554339636),
    ],
)
def test_partly_quantized_files_hold_what_the_hub_counts(name: str, counted: int) -> None:
    architecture, recipe, _ = model(name)
    logical = {"uint8": 2, "int32": 8}
    total = sum(
        piece.elements * logical.get(piece.dtype, 1) * line.tensor.copies * line.times
        for line in weight_lines(architecture, recipe)
        for piece in line.format.pieces(line.tensor.shape)
    )
    # Open are the digits of an offset in each bitsandbytes state, and the shapes stored with experts one by one.
    assert total == pytest.approx(counted, rel=1e-6)


# Sizes in the hub's listing, and of a revision that left fewer experts in 16 bits.
@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        ("poolside/Laguna-S-2.1", 235.1),
        ("poolside/Laguna-S-2.1-NVFP4", 99.7),
        ("poolside/Laguna-S-2.1-INT4", 92.84 * 2**30 / 1e9),
        ("poolside/Laguna-S-2.1-DFlash", 2.23),
        ("cyankiwi/gemma-4-26B-A4B-it-qat-AWQ-INT4", 16.01 * 2**30 / 1e9),
        ("lukealonso/GLM-5-NVFP4", 410 * 2**30 / 1e9),
    ],
)
def test_files_are_as_large_as_listed(name: str, gigabytes: float) -> None:
    architecture, recipe, _ = model(name)
    assert weight_bytes(architecture, recipe) / 1e9 == pytest.approx(gigabytes, rel=0.002)
