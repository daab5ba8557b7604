"""Nemotron-H and Nemotron 3: every layer is one thing, a Mamba-2 mixer, attention, an MLP or experts.

Source: transformers `models/nemotron_h`; the multi-token-prediction module follows vLLM's
`nemotron_h_mtp.py`. Attention has no rotary embedding. With `moe_latent_size` (Nemotron 3 Super and Ultra)
routed experts work in a narrower latent space, which two projections enter and leave.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import MAX_LAYERS, bounded_count, causal_decoder, repeated
from willfit.architectures.blocks.feed_forward import plain_mlp, router
from willfit.architectures.blocks.mtp import mtp_modules
from willfit.architectures.blocks.state_space import mamba2_tensors, state_dtype_of
from willfit.architectures.blocks.tensors import buffer, linear, rms_norm
from willfit.architectures.mixers import Attention, Mixer
from willfit.architectures.mixers.recurrent import mamba2
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

#: What a character of `hybrid_override_pattern` stands for.
_PATTERN = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
#: The names that newer configs use for the same.
_KINDS = {"linear_attention": "mamba", "full_attention": "attention"}


def build(config: Config) -> Architecture:
    """The architecture of a Nemotron-H or Nemotron 3 config."""
    hidden = config.integer("hidden_size")
    steps = bounded_count(config, "num_nextn_predict_layers", default=0)
    modules = _mtp_layers(config, hidden) * steps if steps else ()
    kinds = _kinds(config, "hybrid_override_pattern", "layers_block_type")
    return causal_decoder(
        config,
        family="nemotron_h",
        layers=repeated(lambda kind: _layer(config, hidden, kind, "backbone.layers.{layer}"), kinds),
        hidden=hidden,
        vocab=config.integer("vocab_size"),
        prefix="backbone",
        embed_name="embeddings",
        norm_name="norm_f",
        **mtp_modules(modules),
    )


def _kinds(config: Config, pattern_name: str, list_name: str) -> list[str]:
    listed = config.strings(list_name)
    if listed:
        kinds = [_KINDS.get(kind, kind) for kind in listed]
    else:
        pattern = config.text(pattern_name)
        kinds = [_PATTERN.get(character, character) for character in pattern]
    unknown = set(kinds) - set(_PATTERN.values())
    if unknown or not 0 < len(kinds) <= MAX_LAYERS:
        raise BadInput(
            f"{config.where}: {list_name if listed else pattern_name!r} names no layers that are known",
            f"expected {', '.join(_PATTERN.values())}",
        )
    return kinds


def _attention(config: Config) -> Attention:
    heads = config.integer("num_attention_heads")
    head_dim = config.integer("head_dim", "attention_head_dim", default=128)
    kv_heads = config.integer("num_key_value_heads", default=heads)
    return Attention(heads, kv_heads, head_dim, head_dim)


def _layer(config: Config, hidden: int, kind: str, block: str) -> Layer:
    prefix = f"{block}.mixer"
    mixers: tuple[Mixer, ...] = ()
    widths = None
    if kind == "mamba":
        heads, head_dim = config.integer("mamba_num_heads"), config.integer("mamba_head_dim")
        groups, state = config.integer("n_groups", default=8), config.integer("ssm_state_size", default=128)
        kernel = config.integer("conv_kernel", default=4)
        chunk = config.integer("chunk_size", default=128)
        mixers = (mamba2(heads, head_dim, groups, state, kernel, state_dtype_of(config), chunk),)
        tensors = mamba2_tensors(
            prefix,
            hidden,
            heads,
            head_dim,
            groups,
            state,
            kernel,
            conv_bias=config.boolean("use_conv_bias", default=True),
            bias=config.boolean("use_bias", default=False),
        )
    elif kind == "attention":
        attention = _attention(config)
        mixers = (attention,)
        bias = config.boolean("attention_bias", default=False)
        tensors = attention_tensors(prefix, hidden, attention, bias=bias, out_bias=bias)
    elif kind == "mlp":
        width = config.integer("intermediate_size")
        widths = FeedForward(width, gated=False)
        tensors = plain_mlp(prefix, hidden, width, bias=config.boolean("mlp_bias", default=False))
    else:
        tensors, widths = _experts(config, prefix, hidden)
    return Layer(rms_norm(f"{block}.norm", hidden) + tensors, mixers, widths)


def _experts(config: Config, prefix: str, hidden: int) -> tuple[tuple[Tensor, ...], FeedForward]:
    experts, width = config.integer("n_routed_experts"), config.integer("moe_intermediate_size")
    latent = config.integer("moe_latent_size", default=0)
    shared = config.integer("n_shared_experts", default=1) and config.integer(
        "moe_shared_expert_intermediate_size"
    )
    bias = config.boolean("mlp_bias", default=False)
    tensors = (
        *router(f"{prefix}.gate", hidden, experts),
        *buffer(f"{prefix}.gate.e_score_correction_bias", (experts,), "router"),
        *plain_mlp(
            f"{prefix}.experts.{{expert}}", latent or hidden, width, bias=bias, part="experts", copies=experts
        ),
        *(plain_mlp(f"{prefix}.shared_experts", hidden, shared, bias=bias) if shared else ()),
    )
    if latent:
        tensors += linear(f"{prefix}.fc1_latent_proj", hidden, latent, "mlp", bias=bias)
        tensors += linear(f"{prefix}.fc2_latent_proj", latent, hidden, "mlp", bias=bias)
    return tensors, FeedForward(
        shared,
        gated=False,
        experts=experts,
        top_k=config.integer("num_experts_per_tok"),
        expert_width=width,
    )


def _mtp_layers(config: Config, hidden: int) -> tuple[Layer, ...]:
    """The layers of one prediction step: a fusion of embedding and state before, a norm after."""
    if "mtp_hybrid_override_pattern" in config or "mtp_layers_block_type" in config:
        kinds = _kinds(config, "mtp_hybrid_override_pattern", "mtp_layers_block_type")
    else:
        kinds = ["attention", "moe"]
    block = "mtp.layers.{layer}"
    layers = [_layer(config, hidden, kind, block) for kind in kinds]
    fusion = (
        *rms_norm(f"{block}.enorm", hidden),
        *rms_norm(f"{block}.hnorm", hidden),
        *linear(f"{block}.eh_proj", 2 * hidden, hidden, "mtp"),
    )
    layers[0] = replace(layers[0], tensors=fusion + layers[0].tensors)
    layers[-1] = replace(
        layers[-1], tensors=layers[-1].tensors + rms_norm(f"{block}.final_layernorm", hidden)
    )
    return tuple(layers)
