"""State-space, linear-attention and hybrid models: transformers' shapes, published totals, states by hand."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from willfit.architectures.build import build
from willfit.architectures.model import Architecture
from willfit.checkpoints.catalogue import find
from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.quantities import DTYPE_BYTES

#: Every width differs from every other, so that a swapped pair shows.
WIDE: dict[str, Any] = {
    "vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 2, "intermediate_size": 160, "max_position_embeddings": 48, "head_dim": 12,
}  # fmt: skip
NARROW = {name: value for name, value in WIDE.items() if name != "head_dim"}
MAMBA2 = {
    "mamba_n_heads": 6, "mamba_d_head": 20, "mamba_n_groups": 3, "mamba_d_state": 10, "mamba_d_conv": 4,
    "mamba_d_ssm": 120,
}  # fmt: skip
DELTA = {
    "linear_num_key_heads": 3, "linear_key_head_dim": 10, "linear_num_value_heads": 6,
    "linear_value_head_dim": 14, "linear_conv_kernel_dim": 4,
}  # fmt: skip
MLA = {"kv_lora_rank": 24, "qk_rope_head_dim": 6, "qk_nope_head_dim": 10, "v_head_dim": 14}
KIMI = {
    **WIDE, **MLA, "num_key_value_heads": 8, "num_experts": 5, "num_experts_per_token": 2,
    "moe_intermediate_size": 18, "num_shared_experts": 1, "first_k_dense_replace": 1,
}  # fmt: skip
SPARSE = {
    "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 18,
    "shared_expert_intermediate_size": 22,
}  # fmt: skip
NEMOTRON = {
    **WIDE, "model_type": "nemotron_h", "mamba_num_heads": 6, "mamba_head_dim": 20, "n_groups": 3,
    "ssm_state_size": 10, "hybrid_override_pattern": "M-*E", "n_routed_experts": 5, "num_experts_per_tok": 2,
    "moe_intermediate_size": 18, "moe_shared_expert_intermediate_size": 22,
}  # fmt: skip
GLM_TEXT = {
    **WIDE, **MLA, "model_type": "glm5_next_text", "num_key_value_heads": 8, "n_routed_experts": 5,
    "num_experts_per_tok": 2, "moe_intermediate_size": 18, "q_lora_rank": 26, "qk_rope_head_dim": 0,
    "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"], "n_shared_experts": 1, "hc_mult": 3,
    "linear_num_heads": 3, "linear_head_dim": 10, "index_n_heads": 2, "index_head_dim": 8,
    "index_kpool": 4, "pad_token_id": 0,
}  # fmt: skip
QWEN4 = {
    **WIDE, **DELTA, **SPARSE, "model_type": "qwen4_exp_text", "full_attention_interval": 2, "hc_count": 3,
    "hc_lowrank": 9, "ple_layer_ids": [1, 3], "ple_embed_dim": 48, "heads_per_ngram": 4, "eos_token_id": 1,
    "ngram_vocab_size_base": 97, "make_ngram_vocab_size_divisible_by": 16, "split_ngram_parts": 4,
    "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 8,
    "indexer_compress_ratio": 4,
}  # fmt: skip

SMALL: list[dict[str, Any]] = [
    {"model_type": "mamba", "vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 10},
    {"model_type": "falcon_mamba", "vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 2,
     "state_size": 10, "time_step_rank": 7, "tie_word_embeddings": False, "use_bias": True},
    {"model_type": "mamba2", "vocab_size": 1000, "hidden_size": 60, "num_hidden_layers": 2, "num_heads": 6,
     "head_dim": 20, "n_groups": 3, "state_size": 10},
    {**NARROW, "model_type": "jamba", "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 5,
     "expert_layer_period": 3, "expert_layer_offset": 2, "mamba_d_state": 10, "mamba_dt_rank": 7},
    {**NARROW, "model_type": "zamba", "num_hidden_layers": 8, "attn_layer_period": 3, "attn_layer_offset": 2,
     "num_key_value_heads": 8, "attention_hidden_size": 128, "mamba_d_state": 10, "mamba_dt_rank": 7},
    {**NARROW, "model_type": "zamba2", "num_hidden_layers": 6, "num_key_value_heads": 8, "n_mamba_heads": 8,
     "mamba_ngroups": 2, "add_bias_linear": True, "mamba_d_state": 10, "num_mem_blocks": 2, "adapter_rank": 6,
     "use_shared_attention_adapter": True,
     "layers_block_type": ["linear_attention", "hybrid", "hybrid", "linear_attention", "hybrid", "hybrid"]},
    {**NARROW, "model_type": "recurrent_gemma", "lru_width": 80, "attention_window_size": 16},
    {**WIDE, **MAMBA2, "model_type": "falcon_h1", "mamba_rms_norm": True},
    {**WIDE, **MAMBA2, "model_type": "falcon_h1", "tie_word_embeddings": True},
    {**NARROW, **MAMBA2, "model_type": "bamba", "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 4,
     "attn_layer_indices": [1, 3]},
    {**NARROW, **MAMBA2, "model_type": "granitemoehybrid", "mamba_n_heads": 8, "mamba_d_head": 16,
     "mamba_n_groups": 4, "shared_intermediate_size": 22, "num_local_experts": 5,
     "layer_types": ["mamba", "attention", "mamba", "mamba"]},
    {**NARROW, "model_type": "granitemoehybrid", "num_local_experts": 0, "shared_intermediate_size": 160,
     "layer_types": ["attention"] * 4, "position_embedding_type": "rope"},
    {**NARROW, "model_type": "lfm2", "layer_types": ["conv", "full_attention", "conv", "conv"],
     "block_multiple_of": 16},
    {**NARROW, "model_type": "lfm2", "full_attn_idxs": [2], "conv_bias": True,
     "block_auto_adjust_ff_dim": False},
    {**NARROW, "model_type": "lfm2_moe", "layer_types": ["conv", "full_attention", "conv", "conv"],
     "num_dense_layers": 2, "num_experts": 5, "moe_intermediate_size": 18, "num_experts_per_tok": 2},
    {"model_type": "rwkv", "vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 3,
     "attention_hidden_size": 80, "intermediate_size": 160},
    NEMOTRON,
    {**NEMOTRON, "moe_latent_size": 24},
    {**WIDE, "model_type": "minimax", "num_local_experts": 5,
     "layer_types": ["linear_attention", "full_attention"] * 2},
    {**WIDE, **DELTA, **SPARSE, "model_type": "qwen3_next", "mlp_only_layers": [1]},
    {**WIDE, **DELTA, "model_type": "qwen3_5_text", "tie_word_embeddings": True},
    {**WIDE, **DELTA, **SPARSE, "model_type": "qwen3_5_moe_text", "full_attention_interval": 2},
    QWEN4,
    {**NARROW, **DELTA, "model_type": "olmo_hybrid", "linear_num_key_heads": 6},
    {**KIMI, "model_type": "kimi_linear", "q_lora_rank": None, "linear_attn_config": {
        "full_attn_layers": [2, 4], "kda_layers": [1, 3], "num_heads": 3, "head_dim": 10,
        "short_conv_kernel_size": 4}},
    {**KIMI, "model_type": "bailing_hybrid", "layer_group_size": 2, "num_attention_heads": 8, "head_dim": 10},
    {"model_type": "glm5_next", "architectures": ["Glm5NextForConditionalGeneration"],
     "text_config": GLM_TEXT,
     "vision_config": {"depth": 3, "hidden_size": 32, "num_heads": 4, "intermediate_size": 72,
                       "patch_size": 4, "out_hidden_size": 64, "projection_intermediate_size": 56}},
]  # fmt: skip


def shapes_of(architecture: Architecture) -> Counter[tuple[int, ...]]:
    """How many parameter tensors of each shape; what transformers joins (experts, shards) is joined."""
    counts: Counter[tuple[int, ...]] = Counter()
    fused: dict[str, tuple[int, ...]] = {}
    for name, tensor in architecture.tensors(mtp=False):
        if tensor.kind == "buffer":
            continue
        stem, part = name.rpartition(".experts.")[0], name.rpartition("{expert}.")[2]
        if ".ngram_embedding." in name:
            counts[tensor.shape[0] * tensor.copies, tensor.shape[1]] += 1
        elif tensor.part == "experts" and len(tensor.shape) == 2:
            gate_or_up = part.split(".")[0] in ("gate_proj", "up_proj", "w1", "w3")
            rows, columns = tensor.shape
            key = f"{stem}.{'up' if gate_or_up else 'down'}"
            fused[key] = (tensor.copies, fused.get(key, (0, 0))[1] + rows, columns)
        elif "_conv1d." in name:
            key = name[: name.index("_conv1d.") - 1]
            fused[key] = (fused.get(key, (0,))[0] + tensor.shape[0], *tensor.shape[1:])
        else:
            counts[tensor.shape] += tensor.copies
    counts.update(fused.values())
    return counts


def transformers_shapes(fields: dict[str, Any]) -> Counter[tuple[int, ...]]:
    """The same, of transformers' class, without allocating anything."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from copy import deepcopy

    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[fields["model_type"]](**deepcopy({"pad_token_id": 0} | fields))
    with torch.device("meta"):
        if "architectures" in fields:
            model = getattr(transformers, fields["architectures"][0])._from_config(config)
        else:
            model = transformers.AutoModelForCausalLM.from_config(config)
    return Counter(tuple(parameter.shape) for parameter in model.parameters())


@pytest.mark.parametrize("fields", SMALL, ids=lambda fields: fields["model_type"])
def test_shapes_are_those_of_transformers(fields: dict[str, Any]) -> None:
    assert shapes_of(build(Config(fields))) == transformers_shapes(fields)


def catalogued(name: str) -> dict[str, Any]:
    entry = find(name)
    assert entry is not None
    return dict(entry.config)


def stored(architecture: Architecture) -> int:
    return architecture.parameters + architecture.mtp_parameters + architecture.stored_buffers


@pytest.mark.parametrize(
    "name",
    [
        "state-spaces/mamba-2.8b-hf", "tiiuae/falcon-mamba-7b", "mistralai/Mamba-Codestral-7B-v0.1",
        "ai21labs/AI21-Jamba-Large-1.5", "ai21labs/AI21-Jamba-Reasoning-3B", "Zyphra/Zamba-7B-v1",
        "tiiuae/Falcon-H1-34B-Instruct", "tiiuae/Falcon-H1-0.5B-Instruct", "ibm-granite/granite-4.0-h-small",
        "ibm-granite/granite-4.0-micro", "LiquidAI/LFM2-2.6B", "LiquidAI/LFM2-24B-A2B",
        "nvidia/Nemotron-H-56B-Base-8K", "nvidia/NVIDIA-Nemotron-Nano-9B-v2", "MiniMaxAI/MiniMax-Text-01",
        "MiniMaxAI/MiniMax-M1-80k", "allenai/Olmo-Hybrid-7B", "moonshotai/Kimi-Linear-48B-A3B-Instruct",
        "moonshotai/Kimi-K3", "inclusionAI/Ling-3.0-flash", "Qwen/Qwen3-Next-80B-A3B-Instruct",
        "Qwen/Qwen3.5-0.8B", "Qwen/Qwen3.5-27B", "Qwen/Qwen3.5-397B-A17B", "Qwen/Qwen3.8-2.4T-A95B",
        "Qwen/Qwen3.8-Flash-Next",
    ],
)  # fmt: skip
def test_stored_totals_are_the_published_ones(name: str) -> None:
    entry = find(name)
    assert entry is not None
    assert stored(build(Config(entry.config))) == entry.facts["params_total"]


@pytest.mark.parametrize(
    "name",
    [
        "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-BF16",
        "nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", "LiquidAI/LFM2-8B-A1B",
    ],
)  # fmt: skip
def test_published_totals_that_leave_the_router_bias_out(name: str) -> None:
    entry = find(name)
    assert entry is not None
    architecture = build(Config(entry.config))
    assert architecture.parameters + architecture.mtp_parameters == entry.facts["params_total"]


def glm_5_3_flash() -> dict[str, Any]:
    """The published fields; the catalogue's copy has transformers' defaults for these two."""
    fields = catalogued("zai-org/GLM-5.3-Flash")
    fields["text_config"] = {**fields["text_config"], "index_kpool": 4}
    fields["vision_config"] = {**fields["vision_config"], "out_hidden_size": 4096}
    return fields


def test_glm_5_next_with_its_vision_encoder_and_prediction_module() -> None:
    assert stored(build(Config(glm_5_3_flash()))) == 321_323_031_390  # the hub's total


def test_mamba_130m_by_hand() -> None:
    # A layer: A_log 1536*16 + D 1536 + conv 1536*(4+1) + in 3072*768 + x (48+2*16)*1536 + dt 1536*(48+1)
    # + out 768*1536 = 24576 + 1536 + 7680 + 2359296 + 122880 + 75264 + 1179648 = 3770880.
    assert build(Config(catalogued("state-spaces/mamba-130m-hf"))).parameters_by_part == {
        "embedding": 50280 * 768,  # tied
        "mixer": 24 * 3_770_880,
        "norm": 25 * 768,
    }


def test_qwen3_next_prediction_module_by_hand() -> None:
    # Attention: q and its gate 2*16*256*2048, k and v 2*2*256*2048, o 2048*4096, norms 2*256: 27263488.
    # Experts: 512*3*512*2048, router 512*2048, shared 3*512*2048, its gate 2048: 1614809088.
    # Fusion 2*2048*2048 = 8388608; norms: two of the layer, two before the fusion, one at the end: 5*2048.
    architecture = build(Config(catalogued("Qwen/Qwen3-Next-80B-A3B-Instruct")))
    assert architecture.mtp_parameters == 27_263_488 + 1_614_809_088 + 8_388_608 + 5 * 2048
    names = {tensor.name for tensor in architecture.mtp}
    assert {"mtp.fc.weight", "mtp.norm.weight", "mtp.layers.0.mlp.experts.{expert}.up_proj.weight"} <= names
    assert [layer.kind for layer in architecture.mtp_layers] == ["full attention"]


def test_kimi_k3_layer_by_hand() -> None:
    # Kimi delta attention: q, k, v, o and the output gate 5*12288*7168; forget gate 128*7168 + 12288*128;
    # b 96*7168; convolutions 3*12288*4; decay 128; dt 12288.
    delta = 5 * 12288 * 7168 + 128 * 7168 + 12288 * 128 + 96 * 7168 + 3 * 12288 * 4 + 128 + 12288
    layer = build(Config(catalogued("moonshotai/Kimi-K3"))).layers[1]
    parts = Counter[str]()
    for tensor in layer.tensors:
        if tensor.kind != "buffer":
            parts[tensor.part] += tensor.elements
    assert parts == {
        "mixer": delta,
        "norm": 4 * 7168 + 3584 + 128,
        "router": 896 * 7168,
        "experts": 896 * 3 * 3584 * 3072,
        "mlp": 3 * 6144 * 7168 + 2 * 3584 * 7168 + 2 * 7168,  # the last two weigh earlier blocks
    }


def held_bytes(architecture: Architecture, tokens: int) -> int:
    """What one sequence must hold: cache and convolutions in bf16, recurrent states in fp32."""
    total = 0
    for layer, times in architecture.blocks:
        for mixer in layer.mixers:
            total += times * 2 * mixer.cached_elements(tokens)
            for state in mixer.fixed_states:
                total += times * state.elements * (4 if state.name == "recurrent" else 2)
    return total


#: At 32768 tokens; a layer each of: cache + recurrent state + convolution.
HELD = {
    # 24 x (1536*16*4 + 1536*3*2)
    "state-spaces/mamba-130m-hf": 24 * (98_304 + 9_216),
    # 4 attention, 8 KV heads of 128; 28 x (8192*16*4 + 8192*3*2)
    "ai21labs/Jamba-v0.1": 4 * 134_217_728 + 28 * (524_288 + 49_152),
    # 13 runs of the shared attention, 16 heads of 464; 76 x (7424*16*4 + 7424*3*2)
    "Zyphra/Zamba-7B-v1": 13 * 973_078_528 + 76 * (475_136 + 44_544),
    # both in each of 36 layers: 2 KV heads of 64; 24*64*128*4 + (1536 + 2*128)*3*2
    "tiiuae/Falcon-H1-0.5B-Instruct": 36 * (16_777_216 + 786_432 + 10_752),
    # 4 attention, 4 KV heads of 128; 36 x (48*64*128*4 + (3072 + 2*128)*3*2)
    "ibm-granite/granite-4.0-h-tiny": 4 * 67_108_864 + 36 * (1_572_864 + 19_968),
    # 6 attention, 2 KV heads of 128; 23 x (64*64*128*4 + (4096 + 2*8*128)*3*2): 0.233 GiB
    "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 6 * 33_554_432 + 23 * (2_097_152 + 36_864),
    # 6 attention, 8 KV heads of 64; 10 x 2048*2*2
    "LiquidAI/LFM2-1.2B": 6 * 67_108_864 + 10 * 8_192,
    # 10 attention, 8 KV heads of 128; 70 x 64*128*128*4
    "MiniMaxAI/MiniMax-Text-01": 10 * 134_217_728 + 70 * 4_194_304,
    # 12 x (3*768*4 + the last input of both mixers, 2*768*2)
    "RWKV/rwkv-4-169m-pile": 12 * (9_216 + 3_072),
    # 32 x (40*64*64*4 + 2*2560*2)
    "RWKV/rwkv-5-world-3b": 32 * (655_360 + 10_240),
    # 16 attention, 4 KV heads of 256; 48 x (48*128*128*4 + (2*16*128 + 48*128)*3*2): 2.143 GiB
    "Qwen/Qwen3.5-27B": 16 * 134_217_728 + 48 * (3_145_728 + 61_440),
    # 8 attention, 30 KV heads of 128; 24 x (30*96*192*4 + (2*30*96 + 30*192)*3*2)
    "allenai/Olmo-Hybrid-7B": 8 * 503_316_480 + 24 * (2_211_840 + 69_120),
    # 7 latent attention, 512 + 64 wide; 20 x (32*128*128*4 + 3*4096*3*2)
    "moonshotai/Kimi-Linear-48B-A3B-Instruct": 7 * 37_748_736 + 20 * (2_097_152 + 73_728),
    # 12 attention, 2 KV heads of 256 and one index key of 128 for 4 tokens; 36 delta nets as above;
    # one n-gram memory, whose convolution looks back 3*3 tokens over 4*2560 channels
    "Qwen/Qwen3.8-Flash-Next": 12 * (67_108_864 + 2_097_152) + 36 * (3_145_728 + 61_440) + 184_320,
}


@pytest.mark.parametrize("name", HELD)
def test_what_a_sequence_must_hold(name: str) -> None:
    assert held_bytes(build(Config(catalogued(name))), 32768) == HELD[name]


def test_recurrent_gemma_holds_a_window_and_a_vector() -> None:
    fields = {
        "model_type": "recurrent_gemma", "vocab_size": 256000, "hidden_size": 2560, "num_hidden_layers": 26,
        "num_attention_heads": 10, "num_key_value_heads": 1, "intermediate_size": 15360, "lru_width": 2560,
        "attention_window_size": 2048,
    }  # fmt: skip
    # 8 sliding attention, one KV head of 256 over 2048 tokens; 18 x (2560*4 + 2560*3*2)
    assert held_bytes(build(Config(fields)), 32768) == 8 * 2_097_152 + 18 * (10_240 + 15_360)


def test_an_index_key_serves_a_pool_of_tokens() -> None:
    # 11 latent attention of 512 + one index key of 128 for 4 tokens; 34 x (64*128*128*4 + 3*8192*3*2)
    architecture = build(Config(glm_5_3_flash()))
    assert held_bytes(architecture, 32768) == 11 * (33_554_432 + 2_097_152) + 34 * (4_194_304 + 147_456)
    latent = architecture.layers[3].mixers[0]
    assert latent.cached_elements(5) - latent.cached_elements(4) == 512 + 128  # a pool opens
    assert latent.cached_elements(6) - latent.cached_elements(5) == 512


@pytest.mark.parametrize(
    ("name", "mebibytes"),
    [
        ("state-spaces/mamba-2.8b-hf", 23.75),
        ("Qwen/Qwen3.5-9B", 50.25),
        ("Qwen/Qwen3.6-27B", 149.625),
        ("Qwen/Qwen3.6-35B-A3B", 62.8125),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 75.375),
    ],
)
def test_states_are_as_large_as_llama_cpp_logs_them(name: str, mebibytes: float) -> None:
    # llama.cpp keeps convolutions and states in fp32 and logs their size for one sequence.
    elements = sum(
        times * state.elements
        for layer, times in build(Config(catalogued(name))).blocks
        for mixer in layer.mixers
        for state in mixer.fixed_states
    )
    assert elements * DTYPE_BYTES["fp32"] == mebibytes * 2**20


def test_a_stated_state_dtype_is_kept() -> None:
    def dtypes(fields: dict[str, Any]) -> set[str]:
        layer = build(Config(fields)).layers[0]
        return {state.dtype for state in layer.mixers[0].fixed_states if state.name == "recurrent"}

    assert dtypes({**NEMOTRON, "mamba_ssm_cache_dtype": "float16"}) == {"fp16"}
    assert dtypes({**WIDE, **DELTA, "model_type": "qwen3_5_text", "mamba_ssm_dtype": "float32"}) == {"fp32"}
    assert dtypes({**NEMOTRON, "mamba_ssm_cache_dtype": "auto"}) == {""}
    assert dtypes(NEMOTRON) == {""}


def on_rank(name: str, tensor: str, ranks: int) -> int:
    layer = build(Config(catalogued(name))).layers[0]
    return next(t for t in layer.tensors if t.name.endswith(tensor)).on_rank(ranks)


def test_tensor_parallel_ranks_keep_whole_groups() -> None:
    # granite-4.0-h-tiny, 48 heads of 64, one group: z and x 2*3072/4, B and C 2*128 whole, dt 48/4.
    name = "ibm-granite/granite-4.0-h-tiny"
    assert on_rank(name, "mamba.in_proj.weight", 4) == (1536 + 256 + 12) * 1536
    assert on_rank(name, "mamba.conv1d.weight", 4) == (768 + 256) * 4
    # Qwen3.5-27B, 16 key heads and 48 value heads of 128.
    name = "Qwen/Qwen3.5-27B"
    assert on_rank(name, "linear_attn.in_proj_qkv.weight", 8) == (2 * 2 * 128 + 6 * 128) * 5120
    assert on_rank(name, "linear_attn.out_proj.weight", 8) == 5120 * 6 * 128
    assert on_rank(name, "linear_attn.norm.weight", 8) == 128


def test_quantized_qwen3_5_stores_experts_one_by_one() -> None:
    fields = {**WIDE, **DELTA, **SPARSE, "model_type": "qwen3_5_moe_text", "mtp_num_hidden_layers": 1}
    fused, apart = build(Config(fields)), build(Config({**fields, "quantization_config": {"bits": 4}}))
    assert (fused.parameters, fused.mtp_parameters) == (apart.parameters, apart.mtp_parameters)
    assert "model.layers.0.mlp.experts.gate_up_proj" in dict(fused.tensors())
    assert "model.layers.0.mlp.experts.{expert}.gate_proj.weight" in dict(apart.tensors())
    names = dict(build(Config(catalogued("Qwen/Qwen3.6-35B-A3B-FP8"))).tensors())
    assert "model.language_model.layers.0.mlp.experts.{expert}.gate_proj.weight" in names


@pytest.mark.parametrize(
    ("fields", "changes", "words"),
    [
        (NEMOTRON, {"hybrid_override_pattern": "M-X"}, "hybrid_override_pattern"),
        (NEMOTRON, {"n_routed_experts": None}, "n_routed_experts"),
        (NEMOTRON, {"mamba_ssm_cache_dtype": "float7"}, "float7"),
        (NEMOTRON, {"num_nextn_predict_layers": 10**9}, "num_nextn_predict_layers"),
        (QWEN4, {"split_ngram_parts": 7}, "n-gram table"),
        (QWEN4, {"heads_per_ngram": 10**6}, "n-gram heads"),
        ({**WIDE, "model_type": "minimax_m1"}, {"attn_type_list": [0, 1]}, "attn_type_list"),
        ({**WIDE, "model_type": "qwen3_next"}, {}, "linear_num_key_heads"),
    ],
)
def test_broken_configs_name_what_is_wrong(
    fields: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        build(Config({**fields, **changes}))


@given(st.data())
def test_any_field_may_be_broken(data: st.DataObject) -> None:
    fields = dict(data.draw(st.sampled_from(SMALL)))
    name = data.draw(st.sampled_from(sorted(fields)))
    broken = st.sampled_from([None, "", "x", -1, 0, 1, 0.5, 10**9, 2**60, [], ["x"], [10**9], {}, True])
    with suppress(BadInput):
        build(Config({**fields, name: data.draw(broken)}))
