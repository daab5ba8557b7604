"""The model that Megatron-LM's flags describe, as a config that Hugging Face would write.

Defaults are those of `megatron/training/arguments.py: validate_args` (core 0.4 to 0.19) and of `MLATransformerConfig`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from willfit.checkpoints.catalogue import find
from willfit.errors import BadInput
from willfit.launch.training.keys import Keys

PROGRAM = "Megatron-LM"

#: Entries of tokenizers whose files are not needed to know them (`megatron/training/tokenizer/tokenizer.py`).
_VOCABULARIES = {
    "GPT2BPETokenizer": 50257, "Llama2Tokenizer": 32000, "Llama3Tokenizer": 128256, "TikTokenizer": 131072,
    "BertWordPieceLowerCase": 30522, "BertWordPieceCase": 28996,
}  # fmt: skip

#: `--make-vocab-size-divisible-by` if nothing is said; it is multiplied by the tensor-parallel ranks.
_MULTIPLE = 128

#: `MLATransformerConfig`.
_MLA = {"kv_lora_rank": 32, "qk_head_dim": 128, "qk_pos_emb_head_dim": 64, "v_head_dim": 128}

#: Layers of patterns, as `([0]*3+[1]*58)`: nothing else is evaluated.
_PATTERN = re.compile(r"[\[\]()01,*+\d\s]+")
_LARGEST = 10_000


def config_of(keys: Keys, tp: int) -> tuple[str, dict[str, Any], list[str]]:
    """What to call the model, its config, and notes.

    Parameters
    ----------
    keys
        The flags.
    tp
        Tensor-parallel ranks, for the padding of the vocabulary.

    Raises
    ------
    BadInput
        If sizes are missing, or the flags describe a model that no config describes.
    """
    _refuse_others(keys)
    layers = keys.whole("num_layers") or keys.whole("encoder_num_layers") or keys.whole("decoder_num_layers")
    width, heads = keys.whole("hidden_size"), keys.whole("num_attention_heads")
    given = {"--num-layers": layers, "--hidden-size": width, "--num-attention-heads": heads}
    missing = [flag for flag, value in given.items() if value is None]
    if layers is None or width is None or heads is None:
        hint = (
            "with --use-checkpoint-args they are in the checkpoint; "
            if keys.flag("use_checkpoint_args")
            else ""
        )
        raise BadInput(f"{PROGRAM}: {', '.join(missing)} is required", f"{hint}give the model's sizes")
    gated = bool(keys.flag("swiglu") or keys.flag("quick_geglu") or keys.flag("gated_linear_unit"))
    inner = keys.whole("ffn_hidden_size") or (int((4 * width * 2 / 3) / 64) * 64 if gated else 4 * width)
    groups = keys.whole("num_query_groups") if keys.flag("group_query_attention") else None
    keys.see("num_query_groups")
    if keys.flag("group_query_attention") and groups is None:
        groups = 1
    positions = keys.whole("max_position_embeddings") or keys.whole("seq_length") or 1
    config: dict[str, Any] = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups or heads,
        "intermediate_size": inner,
        "vocab_size": _vocabulary(keys, tp),
        "max_position_embeddings": positions,
        "tie_word_embeddings": not keys.flag("untie_embeddings_and_output_weights"),
        "head_dim": keys.whole("kv_channels") or width // heads,
    }
    more, notes = _kind(keys, config, gated)
    config |= more
    mtp = keys.whole("mtp_num_layers", 0)
    if mtp:
        config["num_nextn_predict_layers"] = mtp
        if config["model_type"] != "deepseek_v3":
            notes.append(f"{mtp} multi-token-prediction layers (mtp_num_layers) are not counted")
    return f"{config['model_type']} of {layers} layers", config, notes


def _refuse_others(keys: Keys) -> None:
    others = {
        "hybrid_override_pattern": "hybrid models", "hybrid_layer_pattern": "hybrid models",
        "hybrid_attention_ratio": "hybrid models", "is_hybrid_model": "hybrid models",
        "retro_add_retriever": "Retro", "vision_pretraining": "vision models",
        "heterogeneous_layers_config_path": "models of uneven layers",
        "experimental_attention_variant": "experimental attention",
        "heterogeneous_layers_config_encoded_json": "models of uneven layers",
        "yaml_cfg": "settings from a YAML file",
    }  # fmt: skip
    for key, what in others.items():
        if keys.values.get(key) not in (None, False, "0", "0.0"):
            flag = "--" + key.replace("_", "-")
            raise BadInput(f"{PROGRAM}: {flag}: {what} cannot be read from flags", "known are GPT models")


def _kind(keys: Keys, config: Mapping[str, Any], gated: bool) -> tuple[dict[str, Any], list[str]]:
    """The type of a config whose layers are those of the flags, its further fields, and how layers differ."""
    notes: list[str] = []
    experts = keys.whole("num_experts") or keys.whole("num_moe_experts")
    normed = keys.flag("qk_layernorm") or keys.flag("qk_l2_norm")
    bias = not keys.flag("disable_bias_linear")
    rms = keys.word("normalization") == "RMSNorm"
    rope = keys.word("position_embedding_type") in ("rope", "mrope", "yarn") or keys.flag(
        "use_rotary_position_embeddings"
    )
    keys.see(
        "max_position_embeddings",
        "no_position_embedding",
        "add_qkv_bias",
        "squared_relu",
        "activation_func",
        "openai_gelu",
    )
    if keys.flag("multi_latent_attention"):
        return _latent(keys, config, experts), notes
    if experts:
        return _experts(keys, config, experts, bool(normed))
    if gated:
        if not rms:
            notes.append("LayerNorm is counted as RMSNorm")
        if bias:
            notes.append("biases of linear layers are not counted")
        if normed:
            return {"model_type": "qwen3"}, notes
        return {"model_type": "qwen2" if keys.flag("add_qkv_bias") else "llama"}, notes
    if rope:
        if keys.flag("squared_relu") and not bias:
            return {"model_type": "nemotron"}, notes
        return {"model_type": "starcoder2", "use_bias": bias}, notes
    if config["num_key_value_heads"] != config["num_attention_heads"]:
        notes.append("learned positions are not counted")
        return {"model_type": "starcoder2", "use_bias": bias}, notes
    return {
        "model_type": "gpt2",
        "n_embd": config["hidden_size"],
        "n_layer": config["num_hidden_layers"],
        "n_head": config["num_attention_heads"],
        "n_inner": config["intermediate_size"],
        "n_positions": config["max_position_embeddings"],
    }, notes


def _dense_layers(keys: Keys, layers: int) -> tuple[int, ...]:
    """Numbers of the layers without experts (`moe_freq_type`)."""
    text = (keys.word("moe_layer_freq") or "1").strip("'\"")
    if "[" not in text:
        every = int(text) if text.isdecimal() and int(text[:6]) else 1
        return tuple(index for index in range(layers) if index % every)
    if not _PATTERN.fullmatch(text):
        raise BadInput(f"{PROGRAM}: --moe-layer-freq is {text[:40]!r}, expected a pattern as ([0]*3+[1]*58)")
    pattern = _pattern(text)
    if len(pattern) != layers:
        raise BadInput(f"{PROGRAM}: --moe-layer-freq has {len(pattern)} layers, --num-layers is {layers}")
    return tuple(index for index, sparse in enumerate(pattern) if not sparse)


def _pattern(text: str) -> list[int]:
    """The list that sums and products of lists make: `([1]*3+[0])*2`."""
    import ast

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.List):
            return [value(one) for one in node.elts]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
            left, right = value(node.left), value(node.right)
            if isinstance(node.op, ast.Add) and isinstance(left, list) and isinstance(right, list):
                return left + right
            if isinstance(node.op, ast.Mult) and isinstance(left, list) != isinstance(right, list):
                times, items = (left, right) if isinstance(right, list) else (right, left)
                if times * len(items) <= _LARGEST:
                    return items * times
        raise ValueError

    try:
        found = value(ast.parse(text, mode="eval").body)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        found = None
    if not isinstance(found, list):
        raise BadInput(f"{PROGRAM}: --moe-layer-freq is {text[:40]!r}, expected a pattern as ([0]*3+[1]*58)")
    return found


def _experts(
    keys: Keys, config: Mapping[str, Any], experts: int, normed: bool
) -> tuple[dict[str, Any], list[str]]:
    dense = _dense_layers(keys, config["num_hidden_layers"])
    inner = keys.whole("moe_ffn_hidden_size") or config["intermediate_size"]
    top = keys.whole("moe_router_topk") or 2
    shared = keys.whole("moe_shared_expert_intermediate_size", 0) or 0
    found = {
        "num_experts": experts,
        "num_experts_per_tok": top,
        "moe_intermediate_size": inner,
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(dense),
    }
    if shared:
        notes = ["norms of queries and keys are not counted"] if normed else []
        return {"model_type": "qwen2_moe", **found, "shared_expert_intermediate_size": shared}, notes
    if normed or dense:
        notes = [] if normed else ["norms of queries and keys, which the model lacks, are counted"]
        return {"model_type": "qwen3_moe", **found}, notes
    return {
        "model_type": "mixtral",
        "num_local_experts": experts,
        "num_experts_per_tok": top,
        "intermediate_size": inner,
    }, []


def _latent(keys: Keys, config: Mapping[str, Any], experts: int | None) -> dict[str, Any]:
    sizes = {key: keys.whole(key) or default for key, default in _MLA.items()}
    found: dict[str, Any] = {
        "model_type": "deepseek_v3",
        "q_lora_rank": keys.whole("q_lora_rank"),
        "kv_lora_rank": sizes["kv_lora_rank"],
        "qk_nope_head_dim": sizes["qk_head_dim"],
        "qk_rope_head_dim": sizes["qk_pos_emb_head_dim"],
        "v_head_dim": sizes["v_head_dim"],
        "num_key_value_heads": config["num_attention_heads"],
        "first_k_dense_replace": config["num_hidden_layers"],
    }
    if experts:
        inner = keys.whole("moe_ffn_hidden_size") or config["intermediate_size"]
        dense = _dense_layers(keys, config["num_hidden_layers"])
        if dense != tuple(range(len(dense))):
            raise BadInput(
                f"{PROGRAM}: --moe-layer-freq: with latent attention the dense layers must be the first"
            )
        shared = keys.whole("moe_shared_expert_intermediate_size", 0) or 0
        found |= {
            "first_k_dense_replace": len(dense),
            "n_routed_experts": experts,
            "num_experts_per_tok": keys.whole("moe_router_topk") or 2,
            "moe_intermediate_size": inner,
            "n_shared_experts": -(-shared // inner),
            "moe_layer_freq": 1,
        }
    return found


def _vocabulary(keys: Keys, tp: int) -> int:
    """Rows of the embedding, padded as Megatron pads them (`_vocab_size_with_padding`)."""
    whole = keys.whole("padded_vocab_size")
    if whole is not None:
        return whole
    kind, name = keys.word("tokenizer_type"), keys.word("tokenizer_model")
    size = keys.whole("vocab_size")
    if size is not None and kind in ("NullTokenizer", "NullMultimodalTokenizer"):
        size += 1
    if size is None and kind in ("HuggingFaceTokenizer", "SFTTokenizer", None) and name:
        entry = find(name.rstrip("/").rpartition("/models/")[2]) or find(name.rstrip("/").rpartition("/")[2])
        config = entry.config if entry else {}
        text = config.get("text_config")
        found = config.get("vocab_size") or (text.get("vocab_size") if isinstance(text, Mapping) else None)
        size = found if isinstance(found, int) else None
    if size is None:
        size = _VOCABULARIES.get(kind or "GPT2BPETokenizer")
    if size is None:
        raise BadInput(
            f"{PROGRAM}: how large the vocabulary is stands in the tokenizer ({(name or kind or '')[:60]})",
            "add --vocab-size N",
        )
    multiple = (keys.whole("make_vocab_size_divisible_by") or _MULTIPLE) * tp
    return -(-size // multiple) * multiple
