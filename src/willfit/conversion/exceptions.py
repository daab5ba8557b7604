"""Where one architecture of llama.cpp calls a tensor otherwise than the others, or cuts it otherwise.

Keys are as in `names.py`: with their ending or without.
"""

from __future__ import annotations

from willfit.architectures.mixers import Recurrent
from willfit.conversion.names import MODULES
from willfit.conversion.splitting import (
    Pieces,
    Place,
    Rule,
    Shape,
    by_group,
    column,
    gate_and_up,
    gate_and_up_shared,
    queries_keys_values,
)


def _shared_or_dense(shape: Shape, place: Place) -> Pieces:
    """Granite's shared MLP: beside experts it is the shared expert, else the only MLP."""
    cut = gate_and_up_shared if _has_experts(place) else gate_and_up
    return cut(shape, place)


def _shared_or_dense_down(shape: Shape, place: Place) -> Pieces:
    return (("ffn_down_shexp.weight" if _has_experts(place) else "ffn_down.weight", shape),)


def _has_experts(place: Place) -> bool:
    return place.layer.feed_forward is not None and place.layer.feed_forward.experts > 0


def _kimi_gate(shape: Shape, place: Place) -> Pieces:
    """The output gate of Kimi K3: of a delta layer, or of latent attention."""
    delta = any(isinstance(mixer, Recurrent) for mixer in place.layer.mixers)
    return (("ssm_g.weight" if delta else "attn_gate.weight", shape),)


def _as_many_as_tokens(shape: Shape, place: Place) -> Pieces:
    """Per-layer embeddings, with empty rows for the tokens that they lack."""
    rows = max(shape[0], place.config.integer("vocab_size", default=0))
    return (("per_layer_token_embd.weight", (rows, *shape[1:])),)


def _ling_gate(shape: Shape, place: Place) -> Pieces:
    """The output gate of Ling 3: of a delta layer, or of latent attention."""
    delta = any(isinstance(mixer, Recurrent) for mixer in place.layer.mixers)
    return (("ssm_g_a.weight" if delta else "attn_gate.weight", shape),)


def _decay_of_heads(_: Shape, place: Place) -> Pieces:
    """The checkpoint pads it to a power of two."""
    return (("ssm_a", (place.config.integer("num_attention_heads"),)),)


def _scores(name: str) -> Rule:
    """A norm and a projection to one number, multiplied into one vector."""
    return lambda shape, _: ((name, (shape[-1],)),)


def _correction_where_scored(shape: Shape, place: Place) -> Pieces:
    """Layers that route by the token itself have no use for it."""
    by_token = any(tensor.name.endswith("tid2eid") for tensor in place.layer.tensors)
    return () if by_token else (("exp_probs_b.bias", shape),)


def _table_of_ngrams(shape: Shape, place: Place) -> Pieces:
    """The hashed n-grams of Qwen 4, split over many files, as one table outside of the layers."""
    return (("^per_layer_token_embd.weight", shape),)


#: Where the norm of that name is the one behind attention, and not the one before the MLP.
_NORM_BEHIND_ATTENTION = (
    "afmoe", "exaone4", "gemma-embedding", "gemma2", "gemma3", "glm4moe", "gpt-oss", "muse-glimmer", "olmo2", "qwen35",
    "qwen35moe", "qwen3next", "seed_oss",
)  # fmt: skip
_POST_ATTENTION: dict[str, Rule] = {"post_attention_layernorm": "post_attention_norm"}

_MAMBA2: dict[str, Rule] = {
    **{f"{block}.A_log": column("ssm_a") for block in ("mamba", "mixer")},
    **{f"{block}.D": column("ssm_d") for block in ("mamba", "mixer")},
    **{f"{block}.norm.weight": by_group("ssm_norm.weight") for block in ("mamba", "mixer")},
}

_GRANITE: dict[str, Rule] = {
    "shared_mlp.input_linear.weight": _shared_or_dense,
    "shared_mlp.output_linear.weight": _shared_or_dense_down,
}

_KIMI: dict[str, Rule] = {"self_attn.A_log": "ssm_a"}

_HYPER_CONNECTIONS: dict[str, Rule] = {
    f"hc_{block}_{part}": f"hc_{block}_{part}.weight"
    for block in ("attn", "ffn")
    for part in ("fn", "base", "scale")
}

_PER_LAYER_INPUTS: dict[str, Rule] = {
    "per_layer_input_gate": "inp_gate",
    "per_layer_projection": "proj",
    "post_per_layer_input_norm": "post_norm",
}


def _without_padding(shape: Shape, place: Place) -> Pieces:
    """RoBERTa's positions start behind the padding token's number."""
    shift = 0
    if place.config.text("model_type", default="").endswith("roberta"):
        shift = 1 + place.config.integer("pad_token_id", default=1)
    return (("position_embd.weight", (shape[0] - shift, *shape[1:])),)


def _t5(stack: str, attention: str, ours: str, layer: int) -> dict[str, Rule]:
    """One attention of T5, with the norm before it."""
    return {
        **{f"{stack}layer.{layer}.{attention}.{word}": f"{ours}_{word}" for word in "qkvo"},
        f"{stack}layer.{layer}.layer_norm": f"{ours}_norm",
    }


def _t5_mlp(stack: str, layer: int) -> dict[str, Rule]:
    return {
        f"{stack}layer.{layer}.DenseReluDense.wi": "ffn_up",
        f"{stack}layer.{layer}.DenseReluDense.wi_0": "ffn_gate",
        f"{stack}layer.{layer}.DenseReluDense.wi_1": "ffn_up",
        f"{stack}layer.{layer}.DenseReluDense.wo": "ffn_down",
        f"{stack}layer.{layer}.layer_norm": "ffn_norm",
    }


#: llama.cpp's architecture -> its exceptions. In an encoder-decoder a key starts with its stack.
EXCEPTIONS: dict[str, dict[str, Rule]] = {
    **dict.fromkeys(_NORM_BEHIND_ATTENTION, _POST_ATTENTION),
    "arctic": {"post_attention_layernorm": "ffn_norm_exps"},
    "bailingmoe": {"attention.query_key_value.weight": queries_keys_values},
    "bailingmoe3": {
        **{
            name.replace("self_attn.", "attention."): rule
            for name, rule in MODULES.items()
            if name.startswith("self_attn.")
        },
        "attention.A_log": lambda shape, _: (("ssm_a", (shape[0], 1)),),
        "attention.dt_bias": "ssm_dt.bias",
        "attention.f_proj": "ssm_f_a",
        "attention.g_proj.weight": _ling_gate,
    },
    "bert": {"embeddings.position_embeddings.weight": _without_padding},
    "deepseek4": {
        **_HYPER_CONNECTIONS,
        "attn.attn_sink": "attn_sinks.weight",
        "attn.wq_a": "attn_q_a",
        "attn.wq_b": "attn_q_b",
        "attn.q_norm": "attn_q_a_norm",
        "attn.wkv": "attn_kv",
        "attn.kv_norm": "attn_kv_a_norm",
        "attn.wo_a": "attn_output_a",
        "attn.wo_b": "attn_output_b",
        "attn.compressor.ape": "attn_compressor_ape.weight",
        "attn.compressor.wkv": "attn_compressor_kv",
        "attn.compressor.wgate": "attn_compressor_gate",
        "attn.compressor.norm": "attn_compressor_norm",
        "attn.indexer.wq_b": "indexer.attn_q_b",
        "attn.indexer.weights_proj": "indexer.proj",
        "attn.indexer.compressor.ape": "indexer_compressor_ape.weight",
        "attn.indexer.compressor.wkv": "indexer_compressor_kv",
        "attn.indexer.compressor.wgate": "indexer_compressor_gate",
        "attn.indexer.compressor.norm": "indexer_compressor_norm",
        "ffn.gate": "ffn_gate_inp",
        "ffn.gate.bias": _correction_where_scored,
        "ffn.gate.tid2eid": "ffn_gate_tid2eid.weight",
        "hc_head_fn": "output_hc_fn.weight",
        "hc_head_base": "output_hc_base.weight",
        "hc_head_scale": "output_hc_scale.weight",
    },
    "falcon-h1": {**_MAMBA2, "pre_ff_layernorm.weight": "ffn_norm"},
    "gemma3n": {
        "embed_tokens_per_layer.weight": _as_many_as_tokens,
        **_POST_ATTENTION,
        **_PER_LAYER_INPUTS,
        "altup.correct_output_scale": "altup_correct_scale.weight",
        "altup.correction_coefs": "altup_correct_coef",
        "altup.prediction_coefs": "altup_predict_coef",
        "altup.modality_router": "altup_router",
        "altup.router_norm": "altup_router_norm",
        "laurel.linear_left": "laurel_l",
        "laurel.linear_right": "laurel_r",
        "laurel.post_laurel_norm": "laurel_post_norm",
    },
    "gemma4": {
        **_POST_ATTENTION,
        **_PER_LAYER_INPUTS,
        "experts.gate_up_proj": "ffn_gate_up_exps.weight",
        "experts.down_proj": "ffn_down_exps.weight",
        "router.scale": "ffn_gate_inp.scale",
        "router.per_expert_scale": "ffn_down_exps.scale",
    },
    "glm5-next": {
        **_HYPER_CONNECTIONS,
        "self_attn.A_log": _decay_of_heads,
        "self_attn.indexer.index_kpool_compress_ape": "indexer_compressor_ape.weight",
        "self_attn.indexer.index_kpool_compress_gate": "indexer_compressor_gate.weight",
    },
    "granite": _GRANITE,
    "granitehybrid": {**_MAMBA2, **_GRANITE},
    "granitemoe": _GRANITE,
    "hy_v3": {"mlp.expert_bias": "exp_probs_b", "final_layernorm": "nextn.shared_head_norm"},
    "internlm2": {"attention.wqkv.weight": queries_keys_values},
    "kimi-k3": {
        "self_attn.A_log": _decay_of_heads,
        "self_attn.g_proj.weight": _kimi_gate,
        "self_attention_res_norm": None,
        "self_attention_res_proj.weight": _scores("attn_res_score.weight"),
        "mlp_res_norm": None,
        "mlp_res_proj.weight": _scores("ffn_res_score.weight"),
    },
    "kimi-linear": _KIMI,
    "mamba2": _MAMBA2,
    "minicpm3": {"self_attn.kv_b_proj": "attn_kv_b"},
    "nemotron_h": _MAMBA2,
    "nemotron_h_moe": {**_MAMBA2, **_POST_ATTENTION, "final_layernorm": "nextn.shared_head_norm"},
    "qwen": {"mlp.w1": "ffn_up", "mlp.w2": "ffn_gate"},
    "qwen4exp": {
        **{
            f"{block}_hyper_connection.{theirs}": f"hc_{ours}_{part}"
            for block, ours in (("attn", "attn"), ("mlp", "ffn"))
            for theirs, part in (
                ("hc_norm", "norm"),
                ("input_mix_weight_down", "down"),
                ("input_mix_weight_up", "up"),
                ("block_inject_weight", "inject"),
            )
        },
        "ple.key_proj": "ple_key",
        "ple.value_proj": "ple_value",
        "ple.norm_key": "ple_norm_key",
        "ple.norm_query": "ple_norm_query",
        "ple.norm_conv": "ple_norm_conv",
        "ple.conv1d.weight": lambda shape, _: (("ple_conv1d.weight", (shape[0], shape[-1])),),
        "ple.ple_embedding.layer_multipliers": None,
        "ple.ple_embedding.ngram_heads_offsets": None,
        "ple.ple_embedding.ngram_heads_vocab_sizes": None,
        "ple.ple_embedding.ngram_embedding.shard_{expert}.weight": _table_of_ngrams,
    },
    "t5": {
        **_t5("enc.", "SelfAttention", "attn", 0),
        **_t5_mlp("enc.", 1),
        **_t5("dec.", "SelfAttention", "attn", 0),
        **_t5("dec.", "EncDecAttention", "cross_attn", 1),
        **_t5_mlp("dec.", 2),
        "encoder.final_layer_norm": "enc.output_norm",
        "decoder.final_layer_norm": "dec.output_norm",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias": "enc.blk.0.attn_rel_b",
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias": "dec.blk.0.attn_rel_b",
    },
}
