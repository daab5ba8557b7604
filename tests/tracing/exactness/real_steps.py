"""Small models and what is done with them, for real on the CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from willfit.tracing.question import Generate, Train
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    OptimizerSettings,
    PrecisionSettings,
    TrainingSettings,
)

SEQUENCES, TOKENS = 2, 96
WIDE = {
    "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 517, "max_position_embeddings": 256, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GEMMA = {**WIDE, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 64}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **WIDE},
    "llama, few words": {"model_type": "llama", **WIDE, "vocab_size": 64},
    "qwen2": {"model_type": "qwen2", **WIDE, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", **WIDE, "head_dim": 40},
    "gemma2": {"model_type": "gemma2", **GEMMA},
    "gemma3": {
        "model_type": "gemma3_text", **GEMMA,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    },
    "gpt2": {
        "model_type": "gpt2", "n_embd": 128, "n_layer": 3, "n_head": 4, "n_positions": 256, "vocab_size": 517,
        "bos_token_id": 1, "eos_token_id": 2,
    },
    "mixtral": {"model_type": "mixtral", **WIDE, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {
        "model_type": "qwen3_moe", **WIDE, "head_dim": 40, "num_experts": 8, "num_experts_per_tok": 3,
        "moe_intermediate_size": 96, "norm_topk_prob": True,
    },
    "deepseek_v3": {
        "model_type": "deepseek_v3", **WIDE, "num_key_value_heads": 4, "moe_intermediate_size": 96,
        "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1,
        "first_k_dense_replace": 1, "kv_lora_rank": 40, "q_lora_rank": 56, "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16, "v_head_dim": 24,
    },
    "phi3": {"model_type": "phi3", **WIDE},
    "olmo2": {"model_type": "olmo2", **WIDE},
    "falcon": {
        "model_type": "falcon", "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
        "vocab_size": 517, "multi_query": True, "parallel_attn": True, "alibi": False, "ffn_hidden_size": 352,
        "bos_token_id": 1, "eos_token_id": 2,
    },
    "mamba2": {
        "model_type": "mamba2", "hidden_size": 96, "num_hidden_layers": 3, "num_heads": 6, "head_dim": 32,
        "state_size": 24, "expand": 2, "n_groups": 1, "conv_kernel": 4, "chunk_size": 32, "vocab_size": 517,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    },
    "bert": {
        "model_type": "bert", "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 352, "vocab_size": 517, "max_position_embeddings": 256,
    },
    "t5": {
        "model_type": "t5", "d_model": 128, "d_ff": 352, "d_kv": 32, "num_layers": 3, "num_heads": 4, "vocab_size": 517,
        "decoder_start_token_id": 0,
    },
}  # fmt: skip
#: Classes of transformers where it is not the first one that makes such a model.
AUTO = {"bert": "AutoModelForMaskedLM", "t5": "AutoModelForSeq2SeqLM"}

PRECISIONS = {
    "fp32": PrecisionSettings(weights="float32"),
    "bf16": PrecisionSettings(weights="bfloat16"),
    "autocast": PrecisionSettings(weights="float32", compute="bfloat16", autocast=True),
}
BASE = TrainingSettings(
    micro_batch=SEQUENCES, seq_len=TOKENS, optimizer=OptimizerSettings("adamw", "foreach")
)
#: Changes of a run, by the word for them.
CHANGES: dict[str, dict[str, Any]] = {
    "checkpointing": {"checkpointing": CheckpointingSettings("full", reentrant=False)},
    "reentrant checkpointing": {"checkpointing": CheckpointingSettings("full", reentrant=True)},
    "LoRA": {"adapter": AdapterSettings(rank=8, dropout=0.05, targets=("all-linear",))},
    "accumulation": {"gradient_accumulation": 3},
    "fused": {"optimizer": OptimizerSettings("adamw", "fused")},
    "for-loop": {"optimizer": OptimizerSettings("adamw", "for-loop")},
    "SGD": {"optimizer": OptimizerSettings("sgd", "foreach", momentum=True)},
    "eager": {"attention": "eager"},
}


def scenario(name: str) -> Train | Generate:
    """A run by its name: `model / precision / change / change`, or `model / precision / generate`."""
    model, precision, *changes = name.split(" / ")
    if "generate" in changes:
        weights = PRECISIONS[precision].weights or ""
        return Generate(MODELS[model], SEQUENCES, prompt_len=TOKENS, new_tokens=4, weights=weights)
    settings = replace(BASE, precision=PRECISIONS[precision])
    for change in changes:
        settings = replace(settings, **CHANGES[change])
    return Train(MODELS[model], settings, auto=AUTO.get(model, ""))


#: Held by the tests: each family, precision and change at least once.
TESTED = (
    "llama / fp32",
    "llama / bf16 / fused",
    "llama / autocast / for-loop",
    "llama, few words / fp32 / checkpointing",
    "llama, few words / autocast / reentrant checkpointing",
    "llama, few words / bf16 / checkpointing / accumulation",
    "llama / fp32 / LoRA",
    "llama, few words / bf16",
    "llama / bf16 / generate",
    "qwen2 / bf16 / accumulation",
    "qwen3 / autocast",
    "gemma2 / bf16 / eager",
    "gemma3 / fp32 / SGD",
    "gpt2 / fp32",
    "gpt2 / autocast / checkpointing",
    "mixtral / bf16",
    "qwen3_moe / bf16 / checkpointing",
    "deepseek_v3 / bf16 / generate",
    "deepseek_v3 / bf16",
    "phi3 / bf16 / LoRA",
    "olmo2 / autocast / SGD",
    "falcon / bf16",
    "mamba2 / fp32 / eager",
    "mamba2 / bf16 / generate",
    "bert / fp32 / fused",
    "t5 / fp32",
)

#: Bytes that a fake run has less than a real one, on the CPU alone: torch's fake `native_layer_norm` gives statistics
#: in the dtype of its input, where the CPU's kernel has those of a bf16 input with float32 weights in float32. For CUDA
#: it gives float32, as its kernel does.
KNOWN = {"bert / autocast": 2 * SEQUENCES * TOKENS * (4 - 2)}

#: transformers has no other attention for them.
EAGER = ("gemma2", "mamba2")

#: Shown by the table besides.
MORE = (
    *(
        name
        for name in (
            f"{model} / {precision}{' / eager' * (model in EAGER)}"
            for model in MODELS
            for precision in PRECISIONS
        )
        if name not in TESTED
    ),
    "llama / fp32 / eager",
    "llama / bf16 / eager",
    "qwen3 / bf16 / checkpointing / LoRA",
    "gemma3 / bf16 / checkpointing",
    "gemma3 / bf16 / generate",
    "gpt2 / bf16 / eager",
    "gpt2 / fp32 / reentrant checkpointing",
    "bert / autocast / checkpointing",
    "t5 / bf16 / checkpointing",
    "t5 / fp32 / generate",
    "mixtral / bf16 / reentrant checkpointing",
    "olmo2 / fp32 / fused / accumulation",
)
