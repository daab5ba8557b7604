"""Dense decoders: transformers' names and shapes, the catalogue's counts, worked examples, broken configs."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.architectures.build import FAMILIES, build
from willfit.architectures.families import gemma, gemma3n, gemma4, llama, persimmon
from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture
from willfit.checkpoints.catalogue import catalogue_ids, find
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

#: Every width differs from every other, so that a swapped pair shows.
WIDE: dict[str, Any] = {
    "vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 2, "intermediate_size": 160, "max_position_embeddings": 48, "head_dim": 12,
}  # fmt: skip
NARROW = {name: value for name, value in WIDE.items() if name != "head_dim"}
ONE_KV = {name: value for name, value in NARROW.items() if name != "num_key_value_heads"}
GPT: dict[str, Any] = {"vocab_size": 1000, "n_embd": 64, "n_layer": 3, "n_head": 8, "n_positions": 48}
OPT: dict[str, Any] = {
    "model_type": "opt", "vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 3,
    "num_attention_heads": 8, "ffn_dim": 160, "max_position_embeddings": 48,
}  # fmt: skip
FALCON = {
    **{name: value for name, value in ONE_KV.items() if name != "intermediate_size"},
    "model_type": "falcon",
}
GEMMA4: dict[str, Any] = {
    **WIDE, "model_type": "gemma4_text", "num_hidden_layers": 6, "sliding_window": 16, "global_head_dim": 24,
    "vocab_size_per_layer_input": 900, "hidden_size_per_layer_input": 0,
}  # fmt: skip

SMALL: list[dict[str, Any]] = [
    *({**WIDE, "model_type": name} for name in (
        "arcee", "cwm", "gemma", "granite", "hunyuan_v1_dense", "internlm3", "iquestcoder", "llama",
        "mistral", "ministral", "ministral3", "nemotron", "qwen2", "qwen3", "seed_oss", "jais2", "gemma2",
        "gemma3_text", "vaultgemma", "glm", "glm4", "phi3", "olmo2", "olmo3", "exaone4", "cohere2",
    )),
    {**WIDE, "model_type": "llama", "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    {**WIDE, "model_type": "seed_oss", "attention_out_bias": True},
    {**WIDE, "model_type": "ernie4_5", "use_bias": True},
    {**WIDE, "model_type": "qwen3", "attention_bias": True},
    {**WIDE, "model_type": "jais2", "attention_bias": False, "mlp_bias": False},
    {**NARROW, "model_type": "smollm3"},
    {**NARROW, "model_type": "helium", "head_dim": 8, "attention_bias": True},
    {**NARROW, "model_type": "olmo"},
    {**NARROW, "model_type": "cohere", "use_qk_norm": True, "attention_bias": True},
    {**NARROW, "model_type": "apertus", "hidden_act": "xielu"},
    {**NARROW, "model_type": "bitnet"},
    {**NARROW, "model_type": "starcoder2"},
    {**NARROW, "model_type": "stablelm", "use_qkv_bias": True},
    {**NARROW, "model_type": "stablelm", "qk_layernorm": True, "use_parallel_residual": True},
    {**NARROW, "model_type": "phi", "qk_layernorm": True},
    {**ONE_KV, "model_type": "persimmon"},
    {**ONE_KV, "model_type": "gpt_neox"},
    {**ONE_KV, "model_type": "gpt_neo", "num_layers": 4, "attention_types": [[["global", "local"], 2]]},
    {**GPT, "model_type": "gpt2"},
    {**GPT, "model_type": "gpt_bigcode", "n_inner": 200},
    {**GPT, "model_type": "gpt_bigcode", "multi_query": False},
    {**GPT, "model_type": "gptj", "rotary_dim": 4},
    {**GPT, "model_type": "codegen", "rotary_dim": 4},
    {"model_type": "bloom", "vocab_size": 1000, "hidden_size": 64, "n_layer": 3, "n_head": 8},
    {"model_type": "mpt", "vocab_size": 1000, "d_model": 64, "n_layers": 3, "n_heads": 8},
    {**OPT, "word_embed_proj_dim": 64},
    {**OPT, "word_embed_proj_dim": 32, "do_layer_norm_before": False},
    FALCON,
    {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 200},
    {**FALCON, "new_decoder_architecture": True, "num_ln_in_parallel_attn": 1},
    {**FALCON, "multi_query": False, "parallel_attn": False, "bias": True, "alibi": True},
    {**WIDE, "model_type": "gemma3n_text", "num_hidden_layers": 10, "num_kv_shared_layers": 5,
     "laurel_rank": 6, "hidden_size_per_layer_input": 20, "vocab_size_per_layer_input": 900,
     "sliding_window": 16, "altup_num_inputs": 3, "intermediate_size": [160] * 5 + [144] * 5},
    GEMMA4,
    {**GEMMA4, "num_hidden_layers": 12, "num_kv_shared_layers": 6, "use_double_wide_mlp": True,
     "hidden_size_per_layer_input": 20},
    {**GEMMA4, "attention_k_eq_v": True, "num_global_key_value_heads": 1},
    {**GEMMA4, "enable_moe_block": True, "num_experts": 5, "top_k_experts": 2, "moe_intermediate_size": 40},
    {"model_type": "muse_glimmer", "architectures": ["MuseGlimmerForConditionalGeneration"],
     "text_config": {**WIDE, "model_type": "muse_glimmer_text", "sliding_window": 16},
     "vision_config": {"model_type": "muse_glimmer_vision", "hidden_size": 32, "intermediate_size": 72,
                       "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 4, "pos_emb_height": 6,
                       "pos_emb_width": 6},
     "out_hidden_size": 128, "projector_hidden_size": 56},
]  # fmt: skip


def parameters_of(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter by name; `{layer}` tensors of a tower as often as they are stored."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, tensor in architecture.tensors(mtp=False):
        if tensor.kind != "buffer":
            shapes |= {name.replace("{layer}", str(copy)): tensor.shape for copy in range(tensor.copies)}
    return shapes


def transformers_parameters(fields: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The same of transformers' class, under the names of published checkpoints."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from copy import deepcopy

    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = fields["model_type"]
    config = CONFIG_MAPPING[model_type].from_dict(deepcopy({"pad_token_id": 0} | fields))
    with torch.device("meta"):
        if "architectures" in fields:
            model = getattr(transformers, fields["architectures"][0])._from_config(config)
        else:
            model = transformers.AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if model_type in ("gpt2", "bloom"):  # published without the outer name
        shapes = {name.removeprefix("transformer."): shape for name, shape in shapes.items()}
    if model_type == "gpt2":  # Conv1D holds (in, out)
        shapes = {
            name: shape[::-1] if re.search(r"c_\w+\.weight", name) else shape
            for name, shape in shapes.items()
        }
    if model_type == "gpt_neox":  # published before transformers renamed it
        shapes = {name.replace("lm_head", "embed_out"): shape for name, shape in shapes.items()}
    return shapes


@pytest.mark.parametrize("fields", SMALL, ids=lambda fields: fields["model_type"])
def test_names_and_shapes_are_those_of_transformers(fields: dict[str, Any]) -> None:
    assert parameters_of(build(Config(fields))) == transformers_parameters(fields)


OWN_FAMILIES = {
    "apertus", "baichuan", "bitnet", "bloom", "chatglm", "cohere", "exaone", "falcon", "gemma", "glm", "gpt2",
    "gpt_neo", "gpt_neox", "gptj", "internlm2", "layer_normed", "llama", "mimo", "mpt", "muse_glimmer",
    "nemotron_nas", "opt", "persimmon", "phi", "phi3", "post_normed", "qwen", "stablelm",
}  # fmt: skip


def test_counts_are_those_of_the_catalogue() -> None:
    counted = 0
    for name in catalogue_ids():
        entry = find(name)
        assert entry is not None
        if FAMILIES.get(entry.config.get("model_type", "")) not in OWN_FAMILIES:
            continue
        known = entry.facts.get("meta_params") or entry.facts.get("formula_params")
        if known:
            assert (name, build(Config(entry.config)).parameters) == (name, known)
            counted += 1
    assert counted > 300


def of_model(name: str) -> Architecture:
    entry = find(name)
    assert entry is not None
    return build(Config(entry.config))


def cached(architecture: Architecture, tokens: int) -> int:
    return sum(mixer.cached_elements(tokens) for layer in architecture.layers for mixer in layer.mixers)


def test_pythia_70m() -> None:
    fields = {
        "model_type": "gpt_neox", "vocab_size": 50304, "hidden_size": 512, "num_hidden_layers": 6,
        "num_attention_heads": 8, "intermediate_size": 2048, "rotary_pct": 0.25,
    }  # fmt: skip
    architecture = build(Config(fields))
    # query_key_value 512 * 1536 + 1536, dense 512 * 512 + 512; up 512 * 2048 + 2048, down 2048 * 512 + 512.
    assert architecture.parameters_by_part == {
        "embedding": 50304 * 512,
        "attention": 6 * (787_968 + 262_656),
        "mlp": 6 * (1_050_624 + 1_049_088),
        "norm": 6 * 4 * 512 + 2 * 512,
        "head": 50304 * 512,
    }
    assert architecture.parameters == 70_426_624
    # Keys and values: 2 * 512 elements per token and layer. A quarter of a head of 64 is rotated.
    assert cached(architecture, 32768) == 6 * 32768 * 1024
    assert [rope.dim for rope in architecture.ropes] == [16]


def test_falcon_7b_shares_one_key_value_head() -> None:
    fields = {
        "model_type": "falcon", "vocab_size": 65024, "hidden_size": 4544, "num_hidden_layers": 32,
        "num_attention_heads": 71, "multi_query": True, "parallel_attn": True, "bias": False, "alibi": False,
    }  # fmt: skip
    architecture = build(Config(fields))
    # Layer: (71 + 2) * 64 * 4544 + 4544^2 + 2 * 4544 * 18176 + 2 * 4544 = 207,070,080.
    assert architecture.parameters == 65024 * 4544 + 32 * 207_070_080 + 2 * 4544 == 6_921_720_704
    assert cached(architecture, 32768) == 32 * 32768 * 2 * 64
    fused = next(t for t in architecture.layers[0].tensors if "query_key_value" in t.name)
    # Over two ranks: 36 of 71 query heads, and the key and value head on both.
    assert fused.on_rank(2) == (36 + 2) * 64 * 4544


def test_gemma3_1b_holds_a_window_in_most_layers() -> None:
    architecture = of_model("google/gemma-3-1b-it")
    assert architecture.parameters == 999_885_952
    # One KV head of 256: 512 elements a token; 22 layers hold 512 tokens, 4 hold all.
    assert cached(architecture, 32768) == 22 * 512 * 512 + 4 * 32768 * 512
    assert len(architecture.ropes) == 2  # sliding layers have an unscaled table of their own


def test_gemma4_e2b_shares_caches_and_widens_heads() -> None:
    entry = find("google/gemma-4-E2B-it")
    assert entry is not None
    architecture = gemma4.build(Config(entry.config["text_config"]), "model.language_model")
    # Published 5,123,178,051 elements; the vision tower has 168,544,256 and the audio tower 307,183,904.
    assert architecture.parameters == 5_104_297_504 - 168_544_256 - 307_183_904
    # Unused: k, v (1536 x 256) and k_norm of 16 sliding layers, twice as wide in 4 full ones. 35 scalars.
    assert architecture.stored_buffers == 16 * (2 * 1536 * 256 + 256) + 4 * (2 * 1536 * 512 + 512) + 35
    # 35 - 20 = 15 layers cache: 12 slide over 512 tokens with one head of 256, 3 hold all with one of 512.
    assert cached(architecture, 32768) == 12 * 512 * 2 * 256 + 3 * 32768 * 2 * 512


def test_gemma4_keys_serve_as_values_but_are_cached_twice() -> None:
    config = Config({**GEMMA4, "attention_k_eq_v": True, "num_global_key_value_heads": 1})
    *_, last = gemma4.build(config).layers
    assert last.mixers == (Attention(8, 1, 24, 24, value_is_key=True),)
    assert last.mixers[0].cached_elements(10) == 10 * (24 + 24)


def test_gemma3n_stores_more_than_it_uses() -> None:
    entry = find("google/gemma-3n-E2B-it")
    assert entry is not None
    architecture = gemma3n.build(Config(entry.config["text_config"]))
    # 10 layers with a shared cache: k and v of 2048 x 512 and k_norm of 256, published beyond the parameters.
    assert architecture.stored_buffers == 10 * (2 * 2048 * 512 + 256) == 5_439_438_272 - 5_418_464_192


def test_mimo_stores_a_prediction_layer() -> None:
    architecture = of_model("XiaomiMiMo/MiMo-7B-Base")
    # Attention 2 * 4096^2 + 4096 + 2 * (4096 * 1024 + 1024), MLP 3 * 4096 * 11008, projection 2 * 4096^2;
    # five norms.
    assert architecture.mtp_parameters == 41_949_184 + 135_266_304 + 33_554_432 + 5 * 4096
    assert architecture.parameters + architecture.mtp_parameters == 7_833_409_536
    assert {tensor.part for tensor in architecture.mtp} == {"mtp"}
    assert architecture.mtp[0].name == "model.mtp_layers.0.token_layernorm.weight"


def test_gpt_neo_alternates_and_stores_masks() -> None:
    architecture = of_model("EleutherAI/gpt-neo-1.3B")
    assert architecture.parameters + architecture.stored_buffers == 1_365_907_456
    # 12 layers hold 256 tokens, 12 hold all; 16 heads of 128.
    assert cached(architecture, 32768) == (12 * 256 + 12 * 32768) * 4096


def test_nemotron_nas_prunes_layer_by_layer() -> None:
    blocks = [
        {"attention": {"n_heads_in_group": 4}, "ffn": {"ffn_mult": 2.625}},
        {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.0}},
        {"attention": {"replace_with_linear": True}, "ffn": {"no_op": True}},
    ]
    fields = {
        "model_type": "nemotron-nas", "vocab_size": 1000, "hidden_size": 1024, "num_hidden_layers": 3,
        "num_attention_heads": 8, "block_configs": blocks,
    }  # fmt: skip
    architecture = build(Config(fields))
    # Widths: 2 * 2.625 * 1024 / 3 = 1792; 2 * 1024 / 3 = 682, rounded up to 768. Two KV heads of 128.
    first = 2 * 1024 + 2 * 1024**2 + 2 * 256 * 1024 + 3 * 1024 * 1792
    second = 1024 + 3 * 1024 * 768
    third = 1024 + 1024**2
    assert architecture.parameters == first + second + third + 2 * 1000 * 1024 + 1024
    assert cached(architecture, 100) == 100 * 2 * 2 * 128


def test_chatglm_has_its_head_whatever_its_class_is_called() -> None:
    architecture = of_model("zai-org/chatglm3-6b")
    assert architecture.parameters_by_part["head"] == 65024 * 4096
    assert architecture.stored_buffers == 32
    assert cached(architecture, 32768) == 28 * 32768 * 2 * 2 * 128


def test_windows_start_at_max_window_layers() -> None:
    fields = {**WIDE, "model_type": "qwen2", "sliding_window": 16, "max_window_layers": 3}
    sliding = build(Config({**fields, "use_sliding_window": True}))
    assert [layer.mixers[0].kind for layer in sliding.layers] == ["full attention"] * 3 + [
        "sliding attention 16"
    ]
    assert cached(build(Config({**fields, "use_sliding_window": False})), 32) == 4 * 32 * 2 * 2 * 12


@pytest.mark.parametrize(
    "build_text", [llama.build, gemma.build, gemma3n.build, gemma4.build, persimmon.build_text]
)
def test_a_text_model_takes_its_place_in_a_larger_one(build_text: Any) -> None:
    config = Config({**WIDE, "model_type": "other", "num_kv_shared_layers": 0, "tie_word_embeddings": False})
    inside = build_text(config, "model.language_model", "model.lm_head")
    names = {name for name, _ in inside.tensors()}
    assert {name for name in names if not name.startswith("model.language_model.")} == {
        "model.lm_head.weight"
    }
    alone = {name for name, _ in build_text(config).tensors()}
    assert {
        name.replace("language_model.", "").replace("model.lm_head", "lm_head") for name in names
    } == alone


def test_an_unknown_type_is_sized_from_its_fields_and_says_so() -> None:
    architecture = build(Config({**WIDE, "model_type": "novel"}))
    assert parameters_of(architecture) == parameters_of(build(Config({**WIDE, "model_type": "llama"})))
    assert architecture.family == "generic"
    assert "'novel' is unknown" in architecture.notes[0]


@pytest.mark.parametrize("name", ["deepseek-ai/DeepSeek-V3", "Qwen/Qwen3-30B-A3B", "zai-org/GLM-4.5"])
def test_an_unknown_type_may_have_experts_and_latent_attention(name: str) -> None:
    entry = find(name)
    assert entry is not None
    guess = build(Config({**entry.config, "model_type": "novel"}))
    truth = build(Config(entry.config))
    assert guess.parameters == pytest.approx(truth.parameters, rel=1e-4)
    assert guess.active_parameters == pytest.approx(truth.active_parameters, rel=1e-3)
    assert cached(guess, 32768) == cached(truth, 32768)


def test_an_unknown_type_may_hold_a_known_language_model() -> None:
    nested = {
        "model_type": "novel_vl",
        "text_config": {**WIDE, "model_type": "qwen3"},
        "vision_config": {"depth": 2},
    }
    architecture = build(Config(nested))
    assert architecture.parameters == build(Config({**WIDE, "model_type": "qwen3"})).parameters
    assert architecture.model_type == "novel_vl"
    assert any("vision_config" in note for note in architecture.notes)


def test_an_open_choice_takes_more_memory() -> None:
    architecture = build(Config({**WIDE, "model_type": "novel", "sliding_window": 8}))
    assert cached(architecture, 100) == 4 * 100 * 2 * 2 * 12
    assert any("sliding_window" in note for note in architecture.notes)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "there is no model_type"),
        ({"model_type": "novel"}, "'novel' is unknown"),
        ({"model_type": "novel", "hidden_size": 64, "num_hidden_layers": 2}, "'num_attention_heads'"),
        ({name: value for name, value in WIDE.items() if name != "intermediate_size"}, "'intermediate_size'"),
        ({**WIDE, "model_type": "llama", "hidden_size": "64"}, "'hidden_size'"),
        ({**WIDE, "model_type": "llama", "num_hidden_layers": 10**9}, "'num_hidden_layers'"),
        ({**OPT, "model_type": "gpt_neo", "attention_types": [["global"]]}, "'attention_types'"),
        ({**WIDE, "model_type": "nemotron-nas", "block_configs": []}, "'block_configs'"),
        ({**WIDE, "model_type": "gemma3n_text", "intermediate_size": [1, 2]}, "'intermediate_size'"),
        ({**NARROW, "model_type": "mimo", "num_nextn_predict_layers": 2**40}, "'num_nextn_predict_layers'"),
    ],
)  # fmt: skip
def test_what_is_missing_or_wrong_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        build(Config(fields))


JUNK = st.sampled_from([None, 0, 1, 2**47, -1, 0.5, "", "8", True, False, [], [0], ["x"], {}, {"x": 1}])


@given(st.data())
def test_a_broken_config_ends_in_bad_input_or_in_a_model(data: st.DataObject) -> None:
    fields = data.draw(st.sampled_from(SMALL))
    if data.draw(st.booleans()):
        fields = {**fields, "model_type": "novel"}
    extra = [
        "rope_scaling",
        "layer_types",
        "sliding_window",
        "tie_word_embeddings",
        "num_experts",
        "torch_dtype",
    ]
    for _ in range(data.draw(st.integers(1, 2))):
        fields = {**fields, data.draw(st.sampled_from([*fields, *extra])): data.draw(JUNK)}
    try:
        architecture = build(Config(fields))
    except BadInput:
        return
    assert architecture.parameters > 0
    assert all(tensor.on_rank(2) <= tensor.elements for _, tensor in architecture.tensors())


def test_a_language_model_may_lie_two_sections_deep() -> None:
    nested = {"model_type": "novel", "thinker_config": {"text_config": WIDE, "audio_config": {}}}
    assert build(Config(nested)).parameters == build(Config({**WIDE, "model_type": "llama"})).parameters
