"""A small model of each family: fields of its transformers config, with sizes that tell terms apart."""

from __future__ import annotations

from typing import Any

LAYERS, HEADS, VOCABULARY, POSITIONS = 3, 8, 1009, 4096
#: Where a head's width is a field of its own, queries are not as wide as the residual stream.
APART = {
    "hidden_size": 176, "intermediate_size": 464, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": 2, "head_dim": 24, "vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
}  # fmt: skip
#: Where it is the hidden width by the heads. Flash attention would pad widths that are no multiple of 8.
TOGETHER = {
    "hidden_size": 192, "intermediate_size": 776, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "pad_token_id": 0,
}  # fmt: skip
GROUPED = {**TOGETHER, "num_key_value_heads": 2}
#: In the words of GPT-2's time.
OLD = {
    "n_embd": 192, "n_inner": 776, "n_layer": LAYERS, "n_head": HEADS, "vocab_size": VOCABULARY,
    "n_positions": POSITIONS,
}  # fmt: skip

MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **APART},
    "llama small vocabulary": {"model_type": "llama", **APART, "vocab_size": 32},
    "llama tied": {"model_type": "llama", **APART, "tie_word_embeddings": True},
    "llama biased": {"model_type": "llama", **APART, "attention_bias": True, "mlp_bias": True},
    "mistral": {"model_type": "mistral", **APART, "sliding_window": None},
    "mistral sliding": {"model_type": "mistral", **APART, "sliding_window": 64},
    "qwen2": {"model_type": "qwen2", **GROUPED},
    "qwen3": {"model_type": "qwen3", **APART},
    "gemma": {"model_type": "gemma", **APART},
    "gemma2": {"model_type": "gemma2", **APART, "query_pre_attn_scalar": 24},
    "gemma3": {
        "model_type": "gemma3_text", **APART, "query_pre_attn_scalar": 24, "sliding_window": 64,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    },
    "phi": {"model_type": "phi", **TOGETHER},
    "phi3": {"model_type": "phi3", **GROUPED},
    "falcon": {
        "model_type": "falcon", **TOGETHER, "ffn_hidden_size": 776, "multi_query": True, "parallel_attn": True,
        "alibi": False,
    },
    "falcon new": {
        "model_type": "falcon", **TOGETHER, "ffn_hidden_size": 776, "new_decoder_architecture": True,
        "num_kv_heads": 2, "alibi": False,
    },
    "gpt_neox": {"model_type": "gpt_neox", **TOGETHER},
    "gptj": {"model_type": "gptj", **OLD, "rotary_dim": 16},
    "gpt2": {"model_type": "gpt2", **OLD},
    "gpt2 without dropout": {"model_type": "gpt2", **OLD, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0},
    "opt": {
        "model_type": "opt", "hidden_size": 192, "word_embed_proj_dim": 192, "ffn_dim": 776,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS,
    },
    "bloom": {"model_type": "bloom", "hidden_size": 192, "n_layer": LAYERS, "n_head": HEADS, "vocab_size": VOCABULARY},
    "stablelm": {"model_type": "stablelm", **GROUPED},
    "olmo2": {"model_type": "olmo2", **GROUPED},
    "granite": {"model_type": "granite", **GROUPED},
    "cohere": {"model_type": "cohere", **GROUPED},
    "glm4": {"model_type": "glm4", **APART},
    "starcoder2": {"model_type": "starcoder2", **GROUPED},
    "mixtral": {"model_type": "mixtral", **APART, "num_local_experts": 6, "num_experts_per_tok": 2},
    "qwen2_moe": {
        "model_type": "qwen2_moe", **GROUPED, "num_experts": 10, "num_experts_per_tok": 3, "moe_intermediate_size": 136,
        "shared_expert_intermediate_size": 280,
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe", **APART, "num_experts": 10, "num_experts_per_tok": 3, "moe_intermediate_size": 136,
        "norm_topk_prob": True,
    },
    "gpt_oss": {
        "model_type": "gpt_oss", **APART, "num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "deepseek_v3": {
        "model_type": "deepseek_v3", "hidden_size": 176, "intermediate_size": 464, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS, "pad_token_id": 0, "moe_intermediate_size": 136, "n_routed_experts": 16,
        "n_shared_experts": 1, "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1,
        "kv_lora_rank": 80, "q_lora_rank": 104, "qk_rope_head_dim": 16, "qk_nope_head_dim": 32, "v_head_dim": 40,
    },
    "mamba2": {
        "model_type": "mamba2", "hidden_size": 176, "num_hidden_layers": LAYERS, "num_heads": 11, "head_dim": 32,
        "state_size": 40, "expand": 2, "n_groups": 1, "chunk_size": 48, "vocab_size": VOCABULARY, "pad_token_id": 0,
    },
    "qwen3_next": {
        "model_type": "qwen3_next", **APART, "num_hidden_layers": 4, "num_experts": 10, "num_experts_per_tok": 3,
        "moe_intermediate_size": 136, "shared_expert_intermediate_size": 280, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "linear_key_head_dim": 32, "linear_value_head_dim": 40,
    },
    "bert": {"model_type": "bert", **TOGETHER, "auto": "AutoModelForMaskedLM"},
    "t5": {
        "model_type": "t5", "auto": "AutoModelForSeq2SeqLM", "d_model": 176, "d_ff": 464, "d_kv": 24,
        "num_layers": LAYERS,
        "num_heads": HEADS, "vocab_size": VOCABULARY, "decoder_start_token_id": 0,
    },
}  # fmt: skip

#: As their repositories say.
PUBLISHED: dict[str, dict[str, Any]] = {
    "Llama-3.1-8B": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
    },
    "Qwen2.5-7B": {
        "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 131072,
    },
    "Qwen3-8B": {
        "model_type": "qwen3", "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "max_position_embeddings": 40960,
    },
    "gemma-2-9b": {
        "model_type": "gemma2", "hidden_size": 3584, "intermediate_size": 14336, "num_hidden_layers": 42,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "vocab_size": 256000,
        "query_pre_attn_scalar": 256, "sliding_window": 4096, "max_position_embeddings": 8192,
    },
    "Mixtral-8x7B-v0.1": {
        "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2,
        "vocab_size": 32000, "max_position_embeddings": 32768,
    },
    "Qwen3-30B-A3B": {
        "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 48,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128,
        "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": True, "vocab_size": 151936,
        "max_position_embeddings": 40960,
    },
    "gpt2-xl": {
        "model_type": "gpt2", "n_embd": 1600, "n_layer": 48, "n_head": 25, "n_positions": 2048, "vocab_size": 50257,
    },
}  # fmt: skip

#: Families whose attention transformers can only run as plain products.
EAGER = ("gemma2", "bloom", "gptj", "gpt_oss", "mamba2", "t5")
