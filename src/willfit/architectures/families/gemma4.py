"""Gemma 4's language model: wider heads in full-attention layers, shared caches, keys as values, experts.

Source: transformers `models/gemma4/modeling_gemma4.py` and `configuration_gemma4.py`; `gemma4_unified`
has the same language model. The experts of a layer run beside its dense MLP.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import fused_experts, gated_mlp, router
from willfit.architectures.blocks.layer_types import windows_of
from willfit.architectures.blocks.per_layer_inputs import (
    per_layer_embeddings,
    per_layer_projections,
    unused_key_values,
)
from willfit.architectures.blocks.rotary import ropes_of
from willfit.architectures.blocks.tensors import buffer, parameter, rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer, Rope
from willfit.checkpoints.config import Config

#: The class defaults of Gemma4TextConfig.
_DEFAULTS = {
    "vocab_size": 262144, "head_dim": 256, "global_head_dim": 512, "sliding_window": 512,
    "vocab_size_per_layer_input": 262144, "hidden_size_per_layer_input": 256, "num_kv_shared_layers": 0,
    "attention_k_eq_v": False, "enable_moe_block": False, "use_double_wide_mlp": False,
    "max_position_embeddings": 131072,
}  # fmt: skip


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Gemma 4 text config."""
    config = config.with_defaults(**_DEFAULTS)
    shape = shape_of(config)
    hidden = shape.hidden
    bias = config.boolean("attention_bias", default=False)
    per_layer = config.integer("hidden_size_per_layer_input")
    keys_are_values = config.boolean("attention_k_eq_v")
    global_kv_heads = config.integer("num_global_key_value_heads", default=0) if keys_are_values else 0
    wide_factor = 2 if config.boolean("use_double_wide_mlp") else 1
    experts = config.integer("num_experts") if config.boolean("enable_moe_block") else 0
    top_k = config.integer("top_k_experts") if experts else 0
    expert_width = config.integer("moe_intermediate_size") if experts else 0
    global_head_dim = config.integer("global_head_dim")
    first_shared = shape.layers - min(shape.layers, config.integer("num_kv_shared_layers"))

    def layer(key: tuple[int, bool]) -> Layer:
        window, shares = key
        if window:
            attention = shape.attention(window=window, shares_cache=shares)
        else:
            attention = shape.attention(
                kv_heads=global_kv_heads or shape.kv_heads,
                head_dim=global_head_dim,
                value_dim=global_head_dim,
                shares_cache=shares,
                value_is_key=keys_are_values,
            )
        width = shape.width * (wide_factor if shares else 1)
        block = f"{prefix}.layers.{{layer}}"
        expert_tensors = (
            *rms_norm(f"{block}.post_feedforward_layernorm_1", hidden),
            *rms_norm(f"{block}.pre_feedforward_layernorm_2", hidden),
            *router(f"{block}.router.proj", hidden, experts),
            *parameter(f"{block}.router.scale", (hidden,), "router"),
            *parameter(f"{block}.router.per_expert_scale", (experts,), "router"),
            *fused_experts(f"{block}.experts", hidden, expert_width, experts),
            *rms_norm(f"{block}.post_feedforward_layernorm_2", hidden),
        )
        return Layer(
            (
                *rms_norm(f"{block}.input_layernorm", hidden),
                *attention_tensors(
                    f"{block}.self_attn", hidden, attention, bias=bias, out_bias=bias, qk_norm=True
                ),
                *unused_key_values(f"{block}.self_attn", hidden, attention),
                *rms_norm(f"{block}.post_attention_layernorm", hidden),
                *rms_norm(f"{block}.pre_feedforward_layernorm", hidden),
                *gated_mlp(f"{block}.mlp", hidden, width),
                *(expert_tensors if experts else ()),
                *rms_norm(f"{block}.post_feedforward_layernorm", hidden),
                *per_layer_projections(block, hidden, per_layer),
                *buffer(f"{block}.layer_scalar", (1,), "norm"),
            ),
            (attention,),
            FeedForward(width, experts=experts, top_k=top_k, expert_width=expert_width),
        )

    # The last layer always sees everything, whatever the pattern says.
    windows = (*windows_of(config, shape.layers, default_pattern=6)[:-1], 0)
    both_ways = config.raw("use_bidirectional_attention") == "all"
    if both_ways:
        windows = tuple(window // 2 + 1 if window else 0 for window in windows)
    shared_cache = [index >= first_shared for index in range(shape.layers)]
    return causal_decoder(
        config,
        family="gemma4",
        layers=repeated(layer, zip(windows, shared_cache, strict=True)),
        hidden=hidden,
        vocab=shape.vocab,
        tied_default=True,
        prefix=prefix,
        head_name=head_name,
        embeddings=per_layer_embeddings(
            prefix, hidden, shape.vocab, shape.layers, config.integer("vocab_size_per_layer_input"), per_layer
        ),
        ropes=_ropes(config, {"sliding_attention": shape.head_dim, "full_attention": global_head_dim}),
        causal=not both_ways,
    )


def _ropes(config: Config, head_dims: dict[str, int]) -> tuple[Rope, ...]:
    """One table per kind of attention, whose heads differ in width."""
    sections = config.section("rope_parameters")
    parts = ((sections.section(kind) if sections else None, dim) for kind, dim in head_dims.items())
    return tuple(
        rope
        for part, dim in parts
        for rope in ropes_of(Config({"rope_parameters": part.fields} if part else {}, config.where), dim)
    )
