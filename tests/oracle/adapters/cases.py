"""Tiny models and adapters that PEFT is asked about, and the settings that willfit is asked with."""

from __future__ import annotations

from typing import Any

_SMALL = {"vocab_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
          "hidden_size": 64, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
          "eos_token_id": 2}  # fmt: skip

MODELS: dict[str, dict[str, Any]] = {
    "llama": {**_SMALL, "model_type": "llama", "architectures": ["LlamaForCausalLM"], "intermediate_size": 160},
    "gpt2": {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 64, "n_layer": 2, "n_head": 4,
             "vocab_size": 128, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2},
    "mixtral": {**_SMALL, "model_type": "mixtral", "architectures": ["MixtralForCausalLM"],
                "intermediate_size": 96, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {**_SMALL, "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "head_dim": 32,
                  "intermediate_size": 96, "moe_intermediate_size": 48, "num_experts": 4,
                  "num_experts_per_tok": 2, "decoder_sparse_step": 1, "mlp_only_layers": []},
    "bloom": {"model_type": "bloom", "architectures": ["BloomForCausalLM"], "hidden_size": 64, "n_layer": 2,
              "n_head": 4, "vocab_size": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    "falcon": {"model_type": "falcon", "architectures": ["FalconForCausalLM"], "hidden_size": 64,
               "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 128, "multi_query": True,
               "new_decoder_architecture": False, "bias": False, "parallel_attn": True, "bos_token_id": 1,
               "eos_token_id": 2},
    "phi3": {**_SMALL, "model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "intermediate_size": 96},
    "gemma2": {**_SMALL, "model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "intermediate_size": 96,
               "head_dim": 32, "query_pre_attn_scalar": 32},
    "t5": {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 64, "d_kv": 16,
           "d_ff": 96, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4, "vocab_size": 128},
}  # fmt: skip

#: Modules of each model that other methods are asked about: an attention and a feed-forward one.
TWO = {
    "llama": ["q_proj", "down_proj"], "gpt2": ["c_attn", "mlp.c_proj"], "mixtral": ["q_proj", "v_proj"],
    "qwen3_moe": ["q_proj", "v_proj"], "bloom": ["query_key_value", "dense_4h_to_h"],
    "falcon": ["query_key_value", "dense_4h_to_h"], "phi3": ["qkv_proj", "down_proj"],
    "gemma2": ["q_proj", "down_proj"], "t5": ["q", "wo"],
}  # fmt: skip

#: (kind, rank, options): options by PEFT's names, rank None for the method's default.
WRAPPING: list[tuple[str, int | None, dict[str, Any]]] = [
    ("lora", 4, {}), ("lora", 4, {"use_dora": True}), ("lora", 4, {"bias": "all"}),
    ("lora", 4, {"bias": "lora_only"}), ("lora", None, {"rank_pattern": {"q_proj": 2}}),
    ("lora", 4, {"layers_to_transform": [1]}), ("lora", 4, {"lora_bias": True}),
    ("lora", 4, {"use_qalora": True, "qalora_group_size": 16}), ("lora", 4, {"init_lora_weights": "mica"}),
    ("lora", 4, {"exclude_modules": ["down_proj", "c_attn"]}),
    ("adalora", None, {"init_r": 6, "total_step": 100}),
    ("loha", 4, {}), ("lokr", 4, {}), ("lokr", 2, {"decompose_both": True, "decompose_factor": 8}),
    ("oft", None, {"oft_block_size": 16}), ("oft", 4, {"oft_block_size": 0}),
    ("oft", None, {"oft_block_size": 12, "block_share": True}), ("boft", None, {}),
    ("boft", None, {"boft_block_size": 0, "boft_block_num": 4}),
    ("vera", 4, {}), ("pvera", 4, {}), ("randlora", 10, {}),
    ("vblora", 2, {"vector_length": 16, "num_vectors": 8}), ("unilora", 3, {"theta_d_length": 32}),
    ("tinylora", 2, {"u": 5}), ("tinylora", 2, {"u": 5, "weight_tying": 0.5}),
    ("lily", 3, {"stride_A": 2, "num_B": 3}), ("frod", None, {"sparse_rate": 0.02, "progressbar": False}),
    ("fourierft", None, {"n_frequency": 50}), ("waveft", None, {"n_frequency": 40}),
    ("waveft", None, {"n_frequency": 40, "proportional_parameters": True}),
    ("c3a", None, {"block_size": 16}), ("shira", 2, {}), ("supertuning", None, {"sparsity": 0.9}),
    ("supertuning", 2, {"sparsity": 0.9, "lora_alpha": 4}),
    ("ia3", None, {}), ("beft", None, {}), ("miss", 8, {}), ("miss", 8, {"init_weights": "bat"}),
    ("miss", 8, {"init_weights": "mini", "mini_r": 16}), ("gralora", 4, {"alpha": 8}),
    ("gralora", 4, {"hybrid_r": 2, "alpha": 8}),
    ("glora", 2, {}), ("glora", 2, {"config_A_B": "vector", "config_C": "vector", "config_D_E": "vector"}),
    ("glora", 2, {"config_A_B": "constant", "config_C": "none"}),
    ("hira", 4, {}), ("delora", 4, {}), ("deft", 4, {}), ("deft", 4, {"para": True}), ("peanut", 4, {}),
    ("peanut", 4, {"depth": 2}), ("poly", 4, {"n_tasks": 3, "n_skills": 2, "n_splits": 2}), ("osf", None, {}),
    ("osf", None, {"rank_pattern": {"down_proj": 40}}), ("osf", None, {"effective_rank": 0.75}),
    ("psoft", 8, {}), ("psoft", 8, {"psoft_orth": False, "psoft_mag_a": False}), ("hra", 4, {}),
    ("road", None, {"variant": "road_1", "group_size": 16}), ("road", None, {"variant": "road_4", "group_size": 16}),
    ("adamss", 6, {"num_subspaces": 4}), ("bone", 8, {}),
]  # fmt: skip

#: Methods that are asked with PEFT's default modules too.
DEFAULTS = (
    "lora",
    "adalora",
    "ia3",
    "ln_tuning",
    "vera",
    "osf",
    "fourierft",
    "c3a",
    "waveft",
    "shira",
    "hira",
    "beft",
)

#: (kind, virtual tokens, options).
PROMPTING: list[tuple[str, int, dict[str, Any]]] = [
    ("prefix", 5, {}), ("prefix", 5, {"prefix_projection": True}),
    ("prefix", 5, {"prefix_projection": True, "encoder_hidden_size": 32}), ("prompt", 5, {}), ("p_tuning", 5, {}),
    ("p_tuning", 5, {"encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 24}),
    ("multitask_prompt", 5, {"num_tasks": 3, "num_ranks": 2}), ("cartridge", 5, {}),
    ("cpt", 3, {"cpt_token_ids": [1, 2, 3], "cpt_mask": [1, 1, 1], "cpt_tokens_type_mask": [1, 2, 3]}),
    ("adaption_prompt", 0, {"adapter_len": 6, "adapter_layers": 1}),
]  # fmt: skip

#: (kind, rank, targets, modules to save, options) of one model each.
OTHER: list[tuple[str, str, int | None, Any, list[str], dict[str, Any]]] = [
    ("llama", "lora", 4, "all-linear", ["embed_tokens", "lm_head"], {}),
    ("gemma2", "lora", 4, ["q_proj"], ["lm_head"], {}),
    ("gpt2", "lora", 4, "all-linear", ["wte"], {}),
    ("llama", "lora", 4, ["embed_tokens", "q_proj"], [], {}),
    ("llama", "lora", 4, ["embed_tokens", "q_proj"], [], {"use_dora": True}),
    ("llama", "lora", 4, r".*layers\.1\..*(q|v)_proj", [], {}),
    ("llama", "lora", 4, ["layers.0.self_attn.q_proj"], [], {}),
    ("t5", "lora", 4, "all-linear", [], {}),
    ("bloom", "lora", 4, "all-linear", [], {}),
    ("falcon", "lora", 4, "all-linear", [], {}),
    ("phi3", "lora", 4, "all-linear", [], {}),
    ("mixtral", "lora", 4, "all-linear", [], {}),
    ("qwen3_moe", "lora", 4, "all-linear", [], {}),
    ("qwen3_moe", "lora", 4, ["q_proj", "gate_proj", "up_proj", "down_proj"], [], {}),
    ("mixtral", "lora", 4, ["q_proj", "w1", "w2", "w3"], [], {}),
    ("mixtral", "lora", 4, ["q_proj"], [], {"target_parameters": ["mlp.experts.down_proj"]}),
    ("llama", "trainable_tokens", None, ["embed_tokens"], [], {"token_indices": [1, 5, 9]}),
    ("llama", "hira", 4, ["embed_tokens", "q_proj"], [], {}),
    ("llama", "ia3", None, ["q_proj", "up_proj"], [], {"feedforward_modules": ["up_proj"]}),
    ("llama", "lora", 4, ["gate_proj", "down_proj"], [],
     {"use_bdlora": {"target_modules_bd_a": ["down_proj"], "target_modules_bd_b": ["gate_proj"], "nblocks": 2}}),
]  # fmt: skip

#: (kind, rank, options) whose forward and backward are recorded.
FORWARDS: list[tuple[str, int | None, dict[str, Any]]] = [
    ("lora", 8, {}), ("lora", 8, {"use_dora": True}), ("lora", 8, {"init_lora_weights": "mica"}),
    ("adalora", None, {"init_r": 8, "total_step": 100}), ("loha", 8, {}), ("lokr", 8, {}),
    ("oft", None, {"oft_block_size": 16}), ("oft", None, {"oft_block_size": 16, "use_cayley_neumann": False}),
    ("boft", None, {"boft_block_size": 8}), ("vera", 8, {}), ("pvera", 8, {}), ("randlora", 8, {}),
    ("vblora", 8, {"vector_length": 16, "num_vectors": 8}), ("unilora", 8, {"theta_d_length": 32}),
    ("tinylora", 4, {"u": 5}), ("lily", 8, {"num_B": 3}), ("frod", None, {"sparse_rate": 0.02, "progressbar": False}),
    ("fourierft", None, {"n_frequency": 500}), ("waveft", None, {"n_frequency": 500}),
    ("c3a", None, {"block_size": 16}), ("shira", 8, {}), ("supertuning", 8, {"sparsity": 0.9, "lora_alpha": 4}),
    ("ia3", None, {"feedforward_modules": []}),
    ("ia3", None, {"feedforward_modules": ["fc"]}), ("beft", None, {}), ("miss", 16, {}),
    ("miss", 16, {"init_weights": "bat"}), ("miss", 16, {"init_weights": "mini", "mini_r": 8}),
    ("gralora", 8, {"alpha": 8}), ("glora", 8, {}), ("hira", 8, {}), ("delora", 8, {}), ("deft", 8, {}),
    ("deft", 8, {"decomposition_method": "qr", "para": True}), ("peanut", 8, {}), ("peanut", 8, {"depth": 1}),
    ("poly", 8, {"n_skills": 2}), ("osf", None, {}), ("psoft", 8, {}), ("hra", 4, {}),
    ("road", None, {"variant": "road_1", "group_size": 16}), ("adamss", 8, {"num_subspaces": 4}),
]  # fmt: skip
