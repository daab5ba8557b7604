"""Metadata that single architectures have: what their loaders insist on.

Factors that decide nothing about memory are written as the config has them, or neutral where it has none (a bundled
config keeps what decides about memory).
"""

from __future__ import annotations

from collections.abc import Callable

from willfit.architectures.mixers import Recurrent
from willfit.checkpoints.config import Config
from willfit.conversion.keys.source import Keys, Source

#: GGUF key -> names in a config, copied as they are where the config has them.
_COPIED: dict[str, tuple[str, ...]] = {
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "router_logit_softcapping": ("router_logit_softcapping",),
}

_GRANITE: dict[str, tuple[str, ...]] = {
    "attention.scale": ("attention_multiplier",),
    "embedding_scale": ("embedding_multiplier",),
    "residual_scale": ("residual_multiplier",),
    "logit_scale": ("logits_scaling",),
}

#: Architecture -> keys that its loader insists on, with what stands where the config has nothing.
_FACTORS: dict[str, dict[str, tuple[str, ...]]] = {
    "cohere2": {"logit_scale": ("logit_scale",)},
    "command-r": {"logit_scale": ("logit_scale",)},
    **dict.fromkeys(("granite", "granitehybrid", "granitemoe"), _GRANITE),
    "minicpm": {"embedding_scale": ("scale_emb",), "residual_scale": (), "logit_scale": ()},
    "minimax-01": {"residual_scale": ("layernorm_full_attention_alpha",)},
    "muse-glimmer": {"logit_scale": ("output_multiplier",)},
    "kimi-k3": {
        "activation.situ_beta": ("activation_situ_beta",),
        "activation.situ_linear_beta": ("activation_situ_linear_beta",),
    },
    "grok": {
        "embedding_scale": ("embedding_multiplier_scale",),
        "logit_scale": ("output_multiplier_scale",),
    },
}


#: How many pairs rotate by time, height and width where the config does not say it.
_SECTIONS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("paddleocr", "qwen2vl"), (16, 24, 24, 0)),
    **dict.fromkeys(("qwen3vl", "qwen3vlmoe"), (24, 20, 20, 0)),
    **dict.fromkeys(("qwen35", "qwen35moe", "qwen4exp"), (11, 11, 10, 0)),
}


def special_keys(source: Source) -> Keys:
    """The keys of the model's own architecture."""
    config = source.config
    keys: Keys = {}
    for key, names in _COPIED.items():
        value = config.raw(*names)
        if isinstance(value, int | float) and value:
            keys[key] = float(value)
    for key, names in _FACTORS.get(source.name, {}).items():
        value = config.raw(*names) if names else None
        keys[key] = float(value) if isinstance(value, int | float) else 1.0
    rope = config.section("rope_parameters", "rope_scaling")
    if (sections := rope.integers("mrope_section") if rope else ()) or source.name in _SECTIONS:
        keys["rope.dimension_sections"] = (*sections, 0, 0, 0, 0)[:4] if sections else _SECTIONS[source.name]
    made = _MADE.get(source.name)
    return keys | (made(source) if made else {})


def _apertus(source: Source) -> Keys:
    ones = (1.0,) * len(source.written.layers)
    return {f"xielu.{name}": ones for name in ("alpha_n", "alpha_p", "beta", "eps")}


def _bailing3(source: Source) -> Keys:
    return {"kda.gate_lower_bound": -5.0, "kda.safe_gate": True}


def _bert(source: Source) -> Keys:
    keys: Keys = {"attention.causal": False}
    head = source.outside("cls.output.weight")
    if head is not None:
        labels = source.config.raw("id2label")
        count = len(labels) if isinstance(labels, dict) else (*head.ne, 1)[1]
        keys["classifier.output_labels"] = tuple(f"LABEL_{index}" for index in range(count))
    return keys


def _dbrx(source: Source) -> Keys:
    section = source.config.section("attn_config")
    clip = section.raw("clip_qkv") if section else None
    return {"attention.clamp_kqv": float(clip) if isinstance(clip, int | float) else 0.0}


def _deepseek4(source: Source) -> Keys:
    config, layers = source.config, len(source.written.layers)
    limit = float(config.number("swiglu_limit", default=0.0))
    return {
        "attention.output_group_count": config.integer("o_groups"),
        "attention.output_lora_rank": config.integer("o_lora_rank"),
        "attention.compress_ratios": tuple(config.integers("compress_ratios")[:layers]),
        "attention.compress_rope_freq_base": config.number("compress_rope_theta", default=10000.0),
        "hyper_connection.count": config.integer("hc_mult"),
        "hyper_connection.sinkhorn_iterations": config.integer("hc_sinkhorn_iters", default=0),
        "hyper_connection.epsilon": config.number("hc_eps", default=1e-6),
        "hash_layer_count": config.integer("num_hash_layers"),
        "swiglu_clamp_exp": (limit,) * layers,
        "swiglu_clamp_shexp": (limit,) * layers,
        "embedding_length_out": source.architecture.hidden_size * config.integer("hc_mult"),
        "expert_weights_norm": bool(config.raw("norm_topk_prob")),
        "expert_weights_scale": config.number("routed_scaling_factor", default=1.0),
        "expert_gating_func": 4,
    }


def _gemma3n(source: Source) -> Keys:
    config = source.config
    return {
        "altup.active_idx": config.integer("altup_active_idx", default=0),
        "altup.num_inputs": config.integer("altup_num_inputs", default=4),
        "embedding_length_per_layer_input": config.integer("hidden_size_per_layer_input"),
    }


def _gemma4(source: Source) -> Keys:
    return {
        "embedding_length_per_layer_input": source.config.integer("hidden_size_per_layer_input", default=0)
    }


def _glm5_next(source: Source) -> Keys:
    config, layers = source.config, len(source.written.layers)
    limit = config.raw("swiglu_limit")
    clamp = {f"swiglu_clamp_{kind}": (float(limit),) * layers for kind in ("exp", "shexp")} if limit else {}
    bound = config.raw("linear_lower_bound")
    return {
        **({"kda.gate_lower_bound": float(bound)} if bound is not None else {}),
        "attention.indexer.kpool": config.integer("index_kpool"),
        "attention.indexer.kpool_select_tail": config.boolean("index_kpool_always_select_tail", default=True),
        "hyper_connection.count": config.integer("hc_mult"),
        "hyper_connection.sinkhorn_iterations": config.integer("hc_sinkhorn_iters", default=0),
        "hyper_connection.epsilon": config.number("hc_eps", default=1e-6),
        **clamp,
    }


def _gptneox(source: Source) -> Keys:
    return {"use_parallel_residual": source.config.boolean("use_parallel_residual", default=True)}


def _kimi_k3(source: Source) -> Keys:
    config = source.config
    keys: Keys = {"attn_res.block_size": config.integer("attn_res_block_size", default=0)}
    if latent := config.optional_integer("routed_expert_hidden_size"):
        keys["expert_latent_length"] = latent
    return keys


def _mamba(source: Source) -> Keys:
    return {"ssm.dt_b_c_rms": source.architecture.model_type == "falcon_mamba"}


def _minimax_m3(source: Source) -> Keys:
    sparse = source.config.section("sparse_attention_config")
    mixer = next((one for mixers in source.mixers for one in mixers if hasattr(one, "index_heads")), None)
    heads, width = getattr(mixer, "index_heads", 0), getattr(mixer, "index_dim", 0)
    return {
        "attention.indexer.head_count": heads,
        "attention.indexer.key_length": width,
        "attention.indexer.top_k": sparse.integer("sparse_topk_blocks") if sparse else 0,
        "attention.indexer.block_size": sparse.integer("sparse_block_size") if sparse else 0,
        "attention.indexer.local_blocks": sparse.integer("sparse_local_block") if sparse else 0,
    }


def _modern_bert(source: Source) -> Keys:
    return {
        "attention.causal": False,
        "hidden_activation": source.config.text("hidden_activation", default="gelu"),
    }


def _mpt(source: Source) -> Keys:
    section = source.config.section("attn_config")
    bias = section.raw("alibi_bias_max") if section and section.raw("alibi") else None
    return {"attention.max_alibi_bias": float(bias) if isinstance(bias, int | float) else 8.0}


def _nemotron_h(source: Source) -> Keys:
    latent = source.config.optional_integer("moe_latent_size")
    return {"moe_latent_size": latent} if latent else {}


def _qwen3vl(source: Source) -> Keys:
    vision = source.outer.section("vision_config")
    layers = vision.items("deepstack_visual_indexes") if vision else []
    return {"n_deepstack_layers": len(layers)}


def _qwen4exp(source: Source) -> Keys:
    config = source.config
    ratio = config.integer("indexer_compress_ratio")
    table = source.outside("per_layer_token_embd.weight")
    recurrent = (
        any(isinstance(one, Recurrent) and one.kind != "n-gram memory" for one in mixers)
        for mixers in source.mixers
    )
    keys: Keys = {
        "hyper_connection.count": config.integer("hc_count"),
        "hyper_connection.low_rank": config.integer("hc_lowrank"),
        "attention.indexer.head_count": config.integer("indexer_n_heads"),
        "attention.indexer.key_length": config.integer("indexer_head_dim"),
        "attention.indexer.top_k": config.integer("indexer_budget", default=0),
        "attention.compress_ratios": tuple(0 if keeps_state else ratio for keeps_state in recurrent),
    }
    if table is not None:
        keys |= {
            "ple.layers": tuple(index - 1 for index in config.integers("ple_layer_ids")),
            "ple.ngram_size": config.integer("ngram_size"),
            "ple.heads_per_ngram": config.integer("heads_per_ngram"),
            "ple.conv_kernel": config.integer("ple_conv_kernel_size"),
            "ple.eos_token_id": 0,
            **_hash_constants(config),
            "embedding_length_per_layer_input": table.ne[0],
        }
    return keys


def _hash_constants(config: Config) -> Keys:
    """As many as the n-gram memory reads; the numbers themselves are in the checkpoint."""
    heads = config.integer("heads_per_ngram") * (config.integer("ngram_size") - 1)
    return {
        "ple.layer_multipliers": (1,) * config.integer("ngram_size"),
        "ple.head_offsets": (0,) * heads,
        "ple.head_vocab_sizes": (1,) * heads,
    }


def _t5(source: Source) -> Keys:
    architecture = source.architecture
    return {
        "block_count": len(architecture.encoder),
        "decoder_block_count": len(architecture.layers),
        "attention.relative_buckets_count": source.config.integer(
            "relative_attention_num_buckets", default=32
        ),
        "decoder_start_token_id": 0,
    }


_MADE: dict[str, Callable[[Source], Keys]] = {
    "apertus": _apertus,
    "bailingmoe3": _bailing3,
    "bert": _bert,
    "dbrx": _dbrx,
    "deepseek4": _deepseek4,
    "gemma-embedding": lambda source: {"attention.causal": False},
    "gemma3n": _gemma3n,
    "gemma4": _gemma4,
    "glm5-next": _glm5_next,
    "gptneox": _gptneox,
    "kimi-k3": _kimi_k3,
    "llama-embed": lambda source: {"attention.causal": False},
    "mamba": _mamba,
    "minimax-m3": _minimax_m3,
    "modern-bert": _modern_bert,
    "mpt": _mpt,
    "nemotron_h": _nemotron_h,
    "nemotron_h_moe": _nemotron_h,
    "qwen3vl": _qwen3vl,
    "qwen3vlmoe": _qwen3vl,
    "qwen4exp": _qwen4exp,
    "t5": _t5,
}
