"""Llama 4's text model: chunked attention, some layers without positions that see everything, fused experts.

Source: transformers `models/llama4` (`Llama4TextModel`).
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import fused_experts, gated_mlp, router
from willfit.architectures.blocks.layer_types import kinds_of
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Llama 4 text model.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    shape = shape_of(config)
    hidden, width = shape.hidden, shape.width
    bias = config.boolean("attention_bias", default=False)
    block = f"{prefix}.layers.{{layer}}"

    def layer(key: tuple[bool, int]) -> Layer:
        routes, chunk = key
        attention = shape.attention(chunk=chunk)
        tensors = (
            *rms_norm(f"{block}.input_layernorm", hidden),
            *attention_tensors(f"{block}.self_attn", hidden, attention, bias=bias, out_bias=bias),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
        )
        mlp = f"{block}.feed_forward"
        if not routes:
            dense = config.integer("intermediate_size_mlp")
            return Layer(tensors + gated_mlp(mlp, hidden, dense), (attention,), FeedForward(dense))
        experts = config.integer("num_local_experts")
        top_k = config.integer("num_experts_per_tok")
        tensors += (
            *router(f"{mlp}.router", hidden, experts),
            *fused_experts(f"{mlp}.experts", hidden, width, experts),
            *gated_mlp(f"{mlp}.shared_expert", hidden, width),
        )
        feed_forward = FeedForward(width, experts=experts, top_k=top_k, expert_width=width)
        return Layer(tensors, (attention,), feed_forward)

    keys = zip(_sparse_layers(config, shape.layers), _chunks(config, shape.layers), strict=True)
    return causal_decoder(
        config,
        family="llama4",
        layers=repeated(layer, keys),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
    )


def _sparse_layers(config: Config, layers: int) -> list[bool]:
    if "moe_layers" in config:
        sparse = set(config.integers("moe_layers"))
        return [index in sparse for index in range(layers)]
    step = config.integer("interleave_moe_layer_step", default=1)
    return [(index + 1) % step == 0 for index in range(layers)]


def _chunks(config: Config, layers: int) -> list[int]:
    """The chunk of each layer in tokens; 0 where it sees everything, which layers without positions do."""
    chunk = config.integer("attention_chunk_size", default=8192)
    kinds = kinds_of(config, layers)
    if kinds:
        return [chunk if "chunked" in kind else 0 for kind in kinds]
    rotated = config.integers("no_rope_layers")
    if len(rotated) >= layers:
        return [chunk if rotated[index] else 0 for index in range(layers)]
    interval = config.integer("no_rope_layer_interval", default=4)
    return [0 if (index + 1) % interval == 0 else chunk for index in range(layers)]
