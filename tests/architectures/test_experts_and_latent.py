"""Mixtures of experts and latent attention: counts by hand, published totals, transformers, state sizes."""

from __future__ import annotations

import copy
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from willfit.architectures.build import build
from willfit.architectures.model import Architecture, Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

MIXTRAL_8X7B = {
    "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2,
    "vocab_size": 32000, "sliding_window": None, "tie_word_embeddings": False,
}  # fmt: skip

DEEPSEEK_V3 = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "num_hidden_layers": 61,
    "num_attention_heads": 128, "num_key_value_heads": 128, "kv_lora_rank": 512, "q_lora_rank": 1536,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "first_k_dense_replace": 3,
    "moe_layer_freq": 1, "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1,
    "num_experts_per_tok": 8, "num_nextn_predict_layers": 1, "vocab_size": 129280,
    "tie_word_embeddings": False,
}  # fmt: skip

GLM_45 = {
    "model_type": "glm4_moe", "attention_bias": True, "first_k_dense_replace": 3, "head_dim": 128,
    "hidden_size": 5120, "intermediate_size": 12288, "moe_intermediate_size": 1536, "n_routed_experts": 160,
    "n_shared_experts": 1, "num_attention_heads": 96, "num_experts_per_tok": 8, "num_hidden_layers": 92,
    "num_key_value_heads": 8, "num_nextn_predict_layers": 1, "use_qk_norm": True, "vocab_size": 151552,
    "tie_word_embeddings": False,
}  # fmt: skip

GPT_OSS_20B = {
    "model_type": "gpt_oss", "head_dim": 64, "hidden_size": 2880, "intermediate_size": 2880,
    "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 8,
    "num_local_experts": 32, "sliding_window": 128, "vocab_size": 201088, "tie_word_embeddings": False,
}  # fmt: skip

DEEPSEEK_V4_PRO = {
    "model_type": "deepseek_v4", "hc_mult": 4, "head_dim": 512, "hidden_size": 7168, "index_head_dim": 128,
    "index_n_heads": 64, "moe_intermediate_size": 3072, "n_routed_experts": 384, "n_shared_experts": 1,
    "num_attention_heads": 128, "num_experts_per_tok": 6, "num_hidden_layers": 61, "num_hash_layers": 3,
    "num_nextn_predict_layers": 1, "o_groups": 16, "o_lora_rank": 1024, "q_lora_rank": 1536,
    "qk_rope_head_dim": 64, "sliding_window": 128, "vocab_size": 129280, "tie_word_embeddings": False,
    "compress_ratios": [128, 128, *[4, 128] * 29, 4, 0],
}  # fmt: skip

DEEPSEEK_V41_FLASH = {
    "model_type": "deepseek_v41",
    "text_config": {
        "compress_ratios": [0] * 2 + [2] * 18 + [1] * 20 + [0] * 3, "dspark_markov_rank": 256,
        "dspark_n_routed_experts": 128, "dspark_num_experts_per_tok": 3,
        "dspark_target_layer_ids": [37, 38, 39], "engram_head_dim": 256, "engram_layer_ids": [1, 14],
        "engram_max_ngram_size": 4, "engram_n_heads": 8,
        "engram_num_embeddings": [384006168, 384016682], "hc_mult": 4, "head_dim": 512, "hidden_size": 5120,
        "index_head_dim": 128, "index_n_heads": 32, "index_source_layer_ids": [2, 8, 14, 20, 24, 28, 32, 36],
        "kv_source_layer_ids": [2, 8, 14, 20], "moe_intermediate_size": 2304, "n_routed_experts": 384,
        "n_shared_experts": 1, "num_attention_heads": 64, "num_experts_per_tok": 6, "num_hidden_layers": 40,
        "num_nextn_predict_layers": 3, "o_groups": 8, "o_lora_rank": 1024, "q_lora_rank": 1280,
        "sliding_window": 128, "vocab_size": 129280,
    },
    "vision_config": {
        "downsample_ratio": 3, "hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16,
        "num_hidden_layers": 32, "patch_size": 14,
    },
}  # fmt: skip

KIMI_K3 = {
    "model_type": "kimi_k3",
    "text_config": {
        "first_k_dense_replace": 1, "hidden_size": 7168, "intermediate_size": 33792, "kv_lora_rank": 512,
        "latent_moe_use_norm": True, "mla_use_nope": True, "moe_intermediate_size": 3072,
        "num_attention_heads": 96, "num_experts": 896, "num_experts_per_token": 16, "num_hidden_layers": 93,
        "num_shared_experts": 2, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "routed_expert_hidden_size": 3584, "v_head_dim": 128, "vocab_size": 163840,
        "attn_res_block_size": 12, "mla_use_output_gate": True,
        "linear_attn_config": {
            "full_attn_layers": [*range(4, 93, 4), 93], "head_dim": 128, "num_heads": 96,
            "short_conv_kernel_size": 4, "use_full_rank_gate": True,
        },
    },
    "vision_config": {
        "init_pos_emb_height": 64, "init_pos_emb_width": 64, "merge_kernel_size": [2, 2], "patch_size": 14,
        "qkv_hidden_size": 1536, "vt_hidden_size": 1024, "vt_intermediate_size": 4096,
        "vt_num_attention_heads": 12, "vt_num_hidden_layers": 27,
    },
}  # fmt: skip

LONGCAT_LITE = {
    "architectures": ["LongcatFlashNgramForCausalLM"], "emb_neighbor_num": 4, "emb_split_num": 4,
    "expert_ffn_hidden_size": 1024, "ffn_hidden_size": 6144, "hidden_size": 3072, "kv_lora_rank": 512,
    "moe_topk": 12, "n_routed_experts": 256, "ngram_vocab_size_ratio": 78, "num_attention_heads": 32,
    "num_layers": 14, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "vocab_size": 131072, "zero_expert_num": 128,
}  # fmt: skip

MIMO_V25_PRO = {
    "model_type": "mimo_v2", "attention_projection_layout": "fused_qkv", "head_dim": 192, "hidden_size": 6144,
    "add_swa_attention_sink_bias": True, "moe_intermediate_size": 2048, "num_experts_per_tok": 8,
    "sliding_window": 128, "v_head_dim": 128, "vocab_size": 152576, "intermediate_size": 16384,
    "hybrid_layer_pattern": [0, *[1, 1, 1, 1, 1, 1, 0], *[1, 1, 1, 1, 1, 1, 1, 0] * 7, *[1, 1, 1, 1, 1, 0]],
    "moe_layer_freq": [0] + [1] * 69, "n_routed_experts": 384, "num_attention_heads": 128,
    "num_hidden_layers": 70, "num_key_value_heads": 8, "swa_num_attention_heads": 128,
    "swa_num_key_value_heads": 8, "swa_head_dim": 192, "swa_v_head_dim": 128, "n_shared_experts": None,
    "tie_word_embeddings": False,
}  # fmt: skip

STEP_37_FLASH = {
    "model_type": "step3p7", "vision_config": {"width": 1536, "layers": 47, "heads": 16},
    "text_config": {
        "model_type": "step3p5", "hidden_size": 4096, "intermediate_size": 11264, "num_hidden_layers": 45,
        "num_attention_heads": 64, "num_attention_groups": 8, "head_dim": 128, "vocab_size": 128896,
        "moe_num_experts": 288, "moe_top_k": 8, "moe_intermediate_size": 1280, "share_expert_dim": 1280,
        "moe_layers_enum": ",".join(str(index) for index in range(3, 45)), "sliding_window": 512,
        "layer_types": ["full_attention", *["sliding_attention"] * 3] * 12, "use_moe_router_bias": True,
        "attention_other_setting": {"num_attention_heads": 96, "num_attention_groups": 8, "head_dim": 128},
        "num_nextn_predict_layers": 3,
    },
}  # fmt: skip


def _architecture(fields: dict[str, Any]) -> Architecture:
    return build(Config(fields))


def _stored(architecture: Architecture) -> int:
    return architecture.parameters + architecture.mtp_parameters + architecture.stored_buffers


def test_mixtral_by_part() -> None:
    """Each part from its shapes."""
    architecture = _architecture(MIXTRAL_8X7B)
    assert architecture.parameters_by_part == {
        "embedding": 131_072_000,  # 32000 * 4096
        "attention": 1_342_177_280,  # 32 * (2 * 4096 * 4096 + 2 * 1024 * 4096)
        "experts": 45_097_156_608,  # 32 * 8 * 3 * 4096 * 14336
        "router": 1_048_576,  # 32 * 8 * 4096
        "norm": 266_240,  # (2 * 32 + 1) * 4096
        "head": 131_072_000,
    }
    # Two of eight experts: 46702792704 - 45097156608 * 6 / 8.
    assert architecture.active_parameters == 12_879_925_248


def test_deepseek_v3_with_its_prediction_module() -> None:
    """Everything in the checkpoint, to the digit of the published 684,489,845,504."""
    architecture = _architecture(DEEPSEEK_V3)
    # Per layer: 1536*7168 + 1536 + 24576*1536 + 576*7168 + 512 + 32768*512 + 7168*16384 = 187107328.
    # Norms inside it: 1536 + 512, counted as `norm`.
    assert architecture.parameters_by_part["attention"] == 61 * (187_107_328 - 2048)
    assert architecture.parameters_by_part["experts"] == 58 * 256 * 3 * 7168 * 2048
    assert architecture.parameters_by_part["mlp"] == 3 * 3 * 7168 * 18432 + 58 * 3 * 7168 * 2048
    # Module 61: a sparse layer (187107328 + 257 * 3*7168*2048 + 256*7168 + 2*7168), two copies of the
    # token table (129280 * 7168 each), the projection (7168 * 14336) and three norms.
    layer = 187_107_328 + 257 * 3 * 7168 * 2048 + 256 * 7168 + 2 * 7168
    assert architecture.mtp_parameters == layer + 2 * 129280 * 7168 + 7168 * 14336 + 3 * 7168
    assert architecture.stored_buffers == 59 * 256  # router biases, the module's included
    assert _stored(architecture) == 684_489_845_504
    names = {tensor.name for tensor in architecture.mtp}
    assert "model.layers.61.eh_proj.weight" in names
    assert "model.layers.61.mlp.experts.{expert}.down_proj.weight" in names


@pytest.mark.parametrize(
    ("fields", "total"),
    [
        (GLM_45, 358_337_791_296),
        (GPT_OSS_20B, 20_914_757_184),
        (DEEPSEEK_V4_PRO, 1_598_839_674_782),
        (DEEPSEEK_V41_FLASH, 763_205_315_794),
        (KIMI_K3, 2_779_931_837_184),
        (LONGCAT_LITE, 69_073_335_552),
        (MIMO_V25_PRO, 1_023_182_841_600),
        (STEP_37_FLASH, 201_365_316_160),
    ],
    ids=[
        "glm-4.5",
        "gpt-oss-20b",
        "v4-pro",
        "v4.1-flash",
        "kimi-k3",
        "longcat-lite",
        "mimo-v2.5-pro",
        "step-3.7",
    ],
)
def test_published_totals(fields: dict[str, Any], total: int) -> None:
    """The total that the hub lists for the checkpoint, block scales aside."""
    assert _stored(_architecture(fields)) == total


def test_deepseek_v4_stored_dtypes_add_up() -> None:
    """Experts are stored in 4 bits, other big linears in 8: the hub lists how many elements of each."""
    stored = list(_architecture(DEEPSEEK_V4_PRO).tensors())
    four_bit = [tensor for name, tensor in stored if "experts.{expert}" in name]
    assert sum(tensor.elements for tensor in four_bit) == 1_572_763_336_704
    modules = ("wq_a", "wq_b", "wkv", "wo_a", "wo_b", "w1", "w2", "w3", "e_proj", "h_proj")
    eight_bit = [
        tensor
        for name, tensor in stored
        if any(f".{module}." in name for module in modules)
        and "compressor" not in name
        and "experts.{expert}" not in name
    ]
    assert sum(tensor.elements for tensor in eight_bit) == 23_169_335_296


def _cached(fields: dict[str, Any], tokens: int = 32768) -> int:
    layers = _architecture(fields).layers
    return sum(mixer.cached_elements(tokens) for layer in layers for mixer in layer.mixers)


def test_latent_cache() -> None:
    """512 latent and 64 rotated elements a token, and 128 index elements where a layer has an indexer."""
    assert _cached(DEEPSEEK_V3) == 61 * 576 * 32768
    indexed = DEEPSEEK_V3 | {"model_type": "deepseek_v32", "index_n_heads": 64, "index_head_dim": 128}
    assert _cached(indexed) == 61 * (576 + 128) * 32768
    shared = indexed | {"model_type": "glm_moe_dsa", "indexer_types": ["full"] + ["shared"] * 60}
    assert _cached(shared) == (61 * 576 + 128) * 32768


def test_windowed_and_chunked_caches() -> None:
    """gpt-oss: 12 layers hold 128 tokens; Llama 4: three of four layers hold one chunk."""
    per_token = 2 * 8 * 64
    assert _cached(GPT_OSS_20B) == 12 * per_token * (32768 + 128)
    llama4 = {
        "model_type": "llama4_text", "hidden_size": 5120, "intermediate_size": 8192, "head_dim": 128,
        "intermediate_size_mlp": 16384, "num_hidden_layers": 48, "num_attention_heads": 40,
        "num_key_value_heads": 8, "num_local_experts": 16, "num_experts_per_tok": 1, "vocab_size": 202048,
        "attention_chunk_size": 8192, "interleave_moe_layer_step": 1,
    }  # fmt: skip
    assert _cached(llama4) == 2048 * (12 * 32768 + 36 * 8192)


def test_compressed_caches() -> None:
    """One 512-wide entry for `ratio` tokens beside a window of 128; index keys where ratio is 4."""
    # 31 layers with ratio 128, 30 with ratio 4.
    expected = 61 * 128 * 512 + 31 * 256 * 512 + 30 * 8192 * (512 + 128)
    assert _cached(DEEPSEEK_V4_PRO) == expected
    # Under construction: 128 * 512 keys and scores; 8 tokens of 1024 and of 256 channels with scores.
    states = [
        sum(state.elements for state in layer.mixers[0].fixed_states)
        for layer in _architecture(DEEPSEEK_V4_PRO).layers[:4]
    ]
    assert states == [131072, 131072, 2 * 8 * (1024 + 256), 131072]
    # V4.1: four layers make entries for all 40, three of them with ratio 2.
    assert _cached(DEEPSEEK_V41_FLASH) == 40 * 128 * 512 + (3 * 16384 + 32768) * 640


def test_indexed_cache() -> None:
    """MiniMax-M3: keys and values of 4 heads and, in 57 of 60 layers, one index key of 128."""
    sparse = [0] * 3 + [1] * 57
    fields = {
        "model_type": "minimax_m3_vl_text", "hidden_size": 6144, "intermediate_size": 3072, "head_dim": 128,
        "num_hidden_layers": 60, "num_attention_heads": 64, "num_key_value_heads": 4, "vocab_size": 200064,
        "dense_intermediate_size": 12288, "shared_intermediate_size": 3072, "num_local_experts": 128,
        "num_experts_per_tok": 4, "moe_layer_freq": sparse,
        "sparse_attention_config": {
            "sparse_index_dim": 128, "sparse_num_index_heads": 4, "sparse_attention_freq": sparse,
        },
    }  # fmt: skip
    assert _cached(fields) == 32768 * (60 * 1024 + 57 * 128)
    # Published: 427040140160 with the vision part's 631185920 + 234381312 (tower and projectors).
    assert _stored(_architecture(fields)) == 427_040_140_160 - 631_185_920 - 234_381_312


def test_tensor_parallel_shares() -> None:
    """What latent attention shares among its heads stays whole on each of eight ranks."""
    tensors = {
        tensor.name.split("{layer}.")[-1]: tensor for tensor in _architecture(DEEPSEEK_V3).layers[-1].tensors
    }
    for name in (
        "self_attn.q_b_proj",
        "self_attn.kv_b_proj",
        "self_attn.o_proj",
        "mlp.experts.{expert}.up_proj",
    ):
        assert tensors[f"{name}.weight"].on_rank(8) == tensors[f"{name}.weight"].elements // 8, name
    for name in ("self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa", "mlp.gate"):
        assert tensors[f"{name}.weight"].on_rank(8) == tensors[f"{name}.weight"].elements, name


#: A model small enough to compare shape by shape, under the names of many families at once.
SMALL: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 20, "vocab_size": 130,
    "max_position_embeddings": 256, "num_experts_per_tok": 2, "tie_word_embeddings": False,
}  # fmt: skip
ROUTED = {"n_routed_experts": 8, "n_shared_experts": 2, "first_k_dense_replace": 1}
LATENT = {
    "kv_lora_rank": 24, "q_lora_rank": 40, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 20,
    "num_key_value_heads": 4, "head_dim": 8,
}  # fmt: skip
INDEXED = {"index_n_heads": 2, "index_head_dim": 16}

#: What each type needs beyond SMALL.
TYPES: dict[str, dict[str, Any]] = {
    "afmoe": {"num_experts": 8, "num_shared_experts": 1, "num_dense_layers": 1, "sliding_window": 16},
    "axk1": ROUTED | LATENT | {"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]},
    "deepseek_v2": ROUTED | LATENT | {"q_lora_rank": None, "topk_group": 1, "n_group": 1},
    "deepseek_v3": ROUTED | LATENT | {"attention_bias": True},
    "deepseek_v32": ROUTED | LATENT | INDEXED,
    "deepseek_v4": INDEXED | {
        "n_routed_experts": 8, "n_shared_experts": 1, "hc_mult": 2, "o_groups": 2, "o_lora_rank": 12,
        "q_lora_rank": 40, "qk_rope_head_dim": 8, "sliding_window": 16, "num_hash_layers": 1,
        "compress_ratios": [0, 128, 4, 128], "head_dim": 16, "intermediate_size": 48,
    },
    "dbrx": {
        "d_model": 64, "n_heads": 4, "n_layers": 4, "max_seq_len": 256,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 8, "moe_top_k": 2},
    },
    "dots1": ROUTED | {"attention_bias": True},
    "ernie4_5_moe": {
        "moe_num_experts": 8, "moe_k": 2, "moe_num_shared_experts": 1, "moe_layer_start_index": 2,
    },
    "exaone_moe": {"num_experts": 8, "num_shared_experts": 1, "first_k_dense_replace": 1},
    "flex_olmo": {"num_experts": 8, "pad_token_id": 1},
    "glm4_moe": ROUTED | {"attention_bias": True, "use_qk_norm": True},
    "glm4_moe_lite": ROUTED | LATENT,
    "glm_moe_dsa": ROUTED | LATENT | INDEXED | {"indexer_types": ["full", "shared", "full", "shared"]},
    "gpt_oss": {"num_local_experts": 8, "sliding_window": 16},
    "granitemoe": {"num_local_experts": 8, "head_dim": 16},
    "hunyuan_v1_moe": {"num_experts": 8, "moe_topk": 2, "intermediate_size": 48, "num_shared_expert": 1},
    "hy_v3": {
        "num_experts": 8, "num_shared_experts": 1,
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    },
    "llama4_text": {
        "num_local_experts": 8, "interleave_moe_layer_step": 2, "intermediate_size_mlp": 80,
    },
    "mimo_v2_flash": {
        "n_routed_experts": 8, "v_head_dim": 12, "sliding_window": 16, "swa_num_attention_heads": 8,
        "swa_num_key_value_heads": 4, "swa_head_dim": 20, "swa_v_head_dim": 12,
        "add_swa_attention_sink_bias": True, "add_full_attention_sink_bias": False,
        "layer_types": ["full_attention", *["sliding_attention"] * 2, "full_attention"],
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"], "num_attention_heads": 8,
    },
    "minicpm3": LATENT,
    "minimax_m2": {"num_local_experts": 8},
    "mixtral": {"num_local_experts": 8},
    "olmoe": {"num_experts": 8, "head_dim": 16},
    "phimoe": {"num_local_experts": 8, "attention_bias": True, "lm_head_bias": True, "head_dim": 16},
    "qwen2_moe": {
        "num_experts": 8, "shared_expert_intermediate_size": 56, "decoder_sparse_step": 2, "head_dim": 16,
    },
    "qwen3_moe": {"num_experts": 8, "mlp_only_layers": [1], "decoder_sparse_step": 1},
    "solar_open": {"n_routed_experts": 8, "n_shared_experts": 1},
    "youtu": LATENT | {"tie_word_embeddings": True},
}  # fmt: skip


def _fields(model_type: str) -> dict[str, Any]:
    return SMALL | {"model_type": model_type} | TYPES[model_type]


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Fused experts are stored as (experts, in, out) by some, so the order of three axes does not count."""
    return tuple(sorted(shape)) if len(shape) > 2 else shape


def _fused(tensors: list[Tensor]) -> Counter[tuple[int, ...]]:
    """Shapes of one layer, experts stored one by one put together as transformers does when it loads them."""
    shapes: Counter[tuple[int, ...]] = Counter()
    single = [tensor for tensor in tensors if tensor.copies > 1]
    for tensor in single:
        rows, columns = tensor.shape
        is_down = "down_proj" in tensor.name or ".w2." in tensor.name
        if is_down:
            shapes[_flat((tensor.copies, rows, columns))] += 1
        elif "up_proj" in tensor.name or ".w3." in tensor.name:
            shapes[_flat((tensor.copies, 2 * rows, columns))] += 1
    shapes.update(_flat(tensor.shape) for tensor in tensors if tensor.copies == 1 and tensor.kind != "buffer")
    return shapes


@pytest.mark.parametrize("model_type", sorted(TYPES))
def test_shapes_are_those_of_transformers(model_type: str) -> None:
    """Every parameter of a small model, by shape, against the class that transformers builds."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    fields = _fields(model_type)
    config = transformers.AutoConfig.for_model(**copy.deepcopy(fields))
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    theirs = Counter(_flat(tuple(parameter.shape)) for parameter in model.parameters())
    architecture = _architecture(fields)
    ours = _fused([*architecture.embeddings, *architecture.head])
    for layer in architecture.layers:
        ours += _fused(list(layer.tensors))
    assert ours == theirs


REAL = {
    "mixtral": MIXTRAL_8X7B, "deepseek_v3": DEEPSEEK_V3, "deepseek_v4": DEEPSEEK_V4_PRO,
    "deepseek_v41": DEEPSEEK_V41_FLASH, "kimi_k3": KIMI_K3, "longcat": LONGCAT_LITE,
    "step3p7": STEP_37_FLASH, "mimo_v2": MIMO_V25_PRO,
} | {model_type: _fields(model_type) for model_type in TYPES}  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_broken_fields_are_bad_input(data: st.DataObject) -> None:
    """Whatever a field is replaced by, a family builds something or says in one line what is wrong."""
    fields = copy.deepcopy(REAL[data.draw(st.sampled_from(sorted(REAL)))])
    sections = [fields, *(value for value in fields.values() if isinstance(value, dict))]
    section = data.draw(st.sampled_from(sections))
    key = data.draw(st.sampled_from(sorted(section.keys() - {"model_type", "architectures"})))
    section[key] = data.draw(st.sampled_from([None, 0, -1, 1.5, "x", [], [1], ["x"], {}, True, 2**60]))
    with suppress(BadInput):
        assert _stored(_architecture(fields)) >= 0


def test_missing_field_is_named() -> None:
    """The message says which field is missing."""
    fields = {key: value for key, value in DEEPSEEK_V3.items() if key != "kv_lora_rank"}
    with pytest.raises(BadInput, match="kv_lora_rank"):
        _architecture(fields)
