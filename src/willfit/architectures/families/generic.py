"""The fallback for a `model_type` that no family knows: a best guess from the fields that most configs share.

It sizes a decoder of Llama's layout, with experts or latent attention where the config has their fields, and
says in `notes` what it assumed. Where a choice is open it takes the one that needs more memory. It refuses
only a config that lacks a field without which nothing can be said.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import Shape, causal_decoder, layer_count, repeated, shape_of
from willfit.architectures.blocks.experts import Experts, expert_tensors
from willfit.architectures.blocks.feed_forward import gated_mlp, plain_mlp
from willfit.architectures.blocks.latent import latent_attention_of, latent_attention_tensors
from willfit.architectures.blocks.layer_types import kinds_of, windows_of
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.build import FAMILIES
from willfit.architectures.build import build as build_known
from willfit.architectures.mixers import Mixer
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

#: Sections in which multimodal configs hold their language model.
_TEXT_SECTIONS = ("text_config", "llm_config", "language_config", "language_model_config", "thinker_config")

#: Spellings of the fields that size a decoder, the name used from here on first.
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd", "n_embed", "d_model", "dim", "model_dim"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers", "num_decoder_layers", "decoder_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads", "decoder_attention_heads"),
    "num_key_value_heads": ("n_head_kv", "n_kv_heads", "num_kv_heads", "multi_query_group_num"),
    "head_dim": ("attention_head_dim", "head_size", "kv_channels", "d_kv"),
    "intermediate_size": ("ffn_hidden_size", "n_inner", "ffn_dim", "d_ff", "hidden_dim", "decoder_ffn_dim"),
    "vocab_size": ("padded_vocab_size", "n_vocab"),
    "num_experts": ("num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts"),
    "num_experts_per_tok": (
        "num_experts_per_token", "experts_per_token", "moe_topk", "moe_top_k", "moe_k", "top_k_experts",
    ),
    "moe_intermediate_size": ("expert_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size"),
    "n_shared_experts": ("num_shared_experts", "num_shared_expert", "moe_num_shared_experts"),
    "shared_expert_intermediate_size": (
        "moe_shared_expert_intermediate_size", "shared_intermediate_size", "share_expert_dim",
    ),
    "attention_bias": ("qkv_bias", "use_qkv_bias", "add_qkv_bias", "use_bias", "add_bias_linear"),
    "mlp_bias": ("use_bias", "add_bias_linear"),
    "use_qk_norm": ("qk_norm", "qk_layernorm"),
}  # fmt: skip

#: Activations that are used without a gate. All others are taken to be gated.
_PLAIN_ACTIVATIONS = ("relu", "relu2", "gelu_new", "gelu_fast", "quick_gelu")


#: Types of encoders that no family reads yet, beside all that have "bert" in their names.
_ENCODERS = frozenset(
    {
        "albert", "big_bird", "data2vec-text", "deberta", "electra", "ernie", "esm", "fnet", "funnel", "gte",
        "layoutlm", "lilt", "longformer", "luke", "mpnet", "mra", "new", "nystromformer", "reformer",
        "roberta-prelayernorm", "xlm", "xlm-roberta-xl", "xmod", "yoso",
    }
)  # fmt: skip


def build(config: Config) -> Architecture:
    """The best guess at the architecture of an unknown model.

    Raises
    ------
    BadInput
        If the config says too little about a language model; the message names what is missing.
    """
    model_type = config.text("model_type", default="")
    text = config.section(*_TEXT_SECTIONS)
    while text is not None and (inner := text.section(*_TEXT_SECTIONS)) is not None:
        text = inner
    said = f"model_type {model_type!r} is unknown" if model_type else "the config names no model_type"
    notes = [f"{said}: the architecture is a guess from its fields"]
    towers = [
        name
        for name in config
        if any(word in name for word in ("vision", "audio")) and _is_object(config, name)
    ]
    if towers:
        notes.append(f"not counted: {', '.join(towers)}")
    if config.raw("is_encoder_decoder") is True:
        notes.append("not counted: the encoder")
    if text is None:
        return _decoder(config, model_type, notes)
    text = text.with_defaults(
        torch_dtype=config.raw("torch_dtype", "dtype"), tie_word_embeddings=config.raw("tie_word_embeddings")
    )
    text_type = text.text("model_type", default="")
    if text_type in FAMILIES:
        language = build_known(text)
        notes.append(f"the language model is sized as {text_type!r}")
        return replace(language, model_type=model_type or text_type, notes=(*language.notes, *notes))
    return _decoder(text, model_type, notes)


def _decoder(config: Config, model_type: str, notes: list[str]) -> Architecture:
    config = _normalised(config, notes)
    if "hidden_size" not in config and "num_hidden_layers" not in config:
        subject = f"model_type {model_type!r} is unknown and" if model_type else "there is no model_type and"
        raise BadInput(
            f"{config.where}: {subject} neither 'hidden_size' nor 'num_hidden_layers' is given",
            "is this the config.json of a language model?",
        )
    layers = layer_count(config)
    experts = _experts(config, notes)
    sparse = _sparse_layers(config, layers) if experts else (False,) * layers
    # Without a dense layer the width of a dense MLP need not be given.
    shape = shape_of(config, width_default=0 if all(sparse) else None)
    latent = config.integer("kv_lora_rank", default=0) > 0
    bias = config.boolean("attention_bias", default=False)
    mlp_bias = config.boolean("mlp_bias", default=False)
    qk_norm = config.raw("use_qk_norm") is True
    activation = config.raw("hidden_act", "hidden_activation", "activation_function")
    encoder = _is_encoder(config, model_type)
    gated = activation not in _PLAIN_ACTIVATIONS and not (encoder and activation == "gelu")
    notes.append(_assumption(shape, latent, gated, experts) + (", no cache" if encoder else ""))

    def layer(key: tuple[int, bool]) -> Layer:
        window, has_experts = key
        block = "model.layers.{layer}"
        mixer: Mixer
        if latent:
            mixer = compressed = latent_attention_of(config)
            tensors = latent_attention_tensors(f"{block}.self_attn", shape.hidden, compressed, bias=bias)
        else:
            mixer = attention = replace(shape.attention(window=window), keeps_cache=not encoder)
            tensors = attention_tensors(
                f"{block}.self_attn", shape.hidden, attention, bias=bias, out_bias=bias, qk_norm=qk_norm
            )
        if experts and has_experts:
            mlp = expert_tensors(f"{block}.mlp", shape.hidden, experts)
            feed_forward = experts.feed_forward
        else:
            make = gated_mlp if gated else plain_mlp
            mlp = make(f"{block}.mlp", shape.hidden, shape.width, bias=mlp_bias)
            feed_forward = FeedForward(shape.width, gated=gated)
        norms = (
            *rms_norm(f"{block}.input_layernorm", shape.hidden),
            *rms_norm(f"{block}.post_attention_layernorm", shape.hidden),
        )
        return Layer((*tensors, *norms, *mlp), (mixer,), feed_forward)

    windows = _windows(config, layers, notes)
    if config.integer("num_nextn_predict_layers", "mtp_num_hidden_layers", default=0):
        notes.append("not counted: multi-token-prediction layers")
    return causal_decoder(
        config,
        family="generic",
        layers=repeated(layer, zip(windows, sparse, strict=True)),
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=config.integer("qk_rope_head_dim") if latent else shape.head_dim,
        notes=tuple(notes),
        model_type=model_type or "unknown",
        encoder_only=encoder,
        causal=not encoder,
    )


def _is_encoder(config: Config, model_type: str) -> bool:
    """Whether a model has the class, the type or the name of an encoder."""
    named = any(
        name.endswith("ForMaskedLM") or "bert" in name.lower() for name in config.strings("architectures")
    )
    return named or model_type in _ENCODERS or "bert" in model_type.lower()


def _is_object(config: Config, name: str) -> bool:
    return isinstance(config.raw(name), dict)


def _normalised(config: Config, notes: list[str]) -> Config:
    """The config with the fields of `_SPELLINGS` under their first names; of a list, the largest value."""
    fields: dict[str, Any] = {}
    for name, others in _SPELLINGS.items():
        value = config.raw(name, *others)
        if isinstance(value, list) and value:
            largest = max(config.integers(name, *others))
            if value != [largest] * len(value):
                notes.append(f"{name} differs by layer: all are sized with the largest")
            value = largest
        fields[name] = value
    return Config({**config.fields, **fields}, config.where)


def _assumption(shape: Shape, latent: bool, gated: bool, experts: Experts | None) -> str:
    attention = "latent attention" if latent else f"{shape.heads} query and {shape.kv_heads} key/value heads"
    mlp = "a gated MLP" if gated else "a plain MLP"
    if experts:
        mlp = f"{experts.count} experts of which {experts.top_k} run"
    return f"assumed: RMS norms, rotary embedding, {attention}, {mlp}"


def _experts(config: Config, notes: list[str]) -> Experts | None:
    count = config.integer("num_experts", default=0)
    if count < 2:
        return None
    if "num_experts_per_tok" not in config:
        notes.append("num_experts_per_tok is missing: every token is taken to use one expert")
    width = config.integer("moe_intermediate_size", "intermediate_size")
    shared = config.integer("n_shared_experts", default=0) * width
    return Experts(
        count=count,
        top_k=config.integer("num_experts_per_tok", default=1),
        width=width,
        shared_width=config.integer("shared_expert_intermediate_size", default=shared),
    )


def _sparse_layers(config: Config, layers: int) -> tuple[bool, ...]:
    """Which layers have experts, in the ways that DeepSeek, Qwen, Llama 4 and their kin say so."""
    kinds = config.strings("mlp_layer_types")
    if len(kinds) == layers:
        return tuple(kind != "dense" for kind in kinds)
    frequency: Any = config.raw("moe_layer_freq")
    if isinstance(frequency, list) and len(frequency) == layers:
        return tuple(bool(flag) for flag in config.integers("moe_layer_freq"))
    step = config.integer(
        "decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval", "moe_layer_freq", default=1
    )
    first = config.integer("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index", default=0)
    dense = set(config.integers("mlp_only_layers"))
    return tuple(
        index >= first and index not in dense and (index + 1) % max(step, 1) == 0 for index in range(layers)
    )


def _windows(config: Config, layers: int, notes: list[str]) -> tuple[int, ...]:
    others = {kind for kind in kinds_of(config, layers) or () if "attention" not in kind or "linear" in kind}
    if others:
        notes.append(f"sized as full attention: layers of kind {', '.join(sorted(others))}")
    windows = windows_of(config, layers)
    if "sliding_window" in config and config.raw("use_sliding_window") is not False and not any(windows):
        notes.append("sliding_window is given without the layers that slide: all are sized as full attention")
    return windows
