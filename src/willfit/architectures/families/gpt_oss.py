"""gpt-oss: attention sinks, alternating windows, fused experts with biases.

Source: transformers `models/gpt_oss/modeling_gpt_oss.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import fused_experts, router
from willfit.architectures.blocks.layer_types import windows_of
from willfit.architectures.blocks.tensors import column, parameter, rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a gpt-oss config.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    shape = shape_of(config)
    hidden = shape.hidden
    bias = config.boolean("attention_bias", default=True)
    experts = config.integer("num_local_experts", "num_experts")
    top_k = config.integer("num_experts_per_tok", "experts_per_token")
    block = f"{prefix}.layers.{{layer}}"

    def layer(window: int) -> Layer:
        attention = shape.attention(window=window)
        tensors = (
            *rms_norm(f"{block}.input_layernorm", hidden),
            *attention_tensors(f"{block}.self_attn", hidden, attention, bias=bias, out_bias=bias),
            *parameter(f"{block}.self_attn.sinks", (shape.heads,), "attention", column(shape.heads)),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
            *router(f"{block}.mlp.router", hidden, experts, bias=True),
            *fused_experts(f"{block}.mlp.experts", hidden, shape.width, experts, bias=True),
        )
        feed_forward = FeedForward(0, experts=experts, top_k=top_k, expert_width=shape.width)
        return Layer(tensors, (attention,), feed_forward)

    return causal_decoder(
        config,
        family="gpt_oss",
        layers=repeated(layer, windows_of(config, shape.layers, default_pattern=2)),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
    )
