"""Granite 3 mixtures of experts: all experts of a layer in two 3-D tensors.

Source: transformers `models/granitemoe/modeling_granitemoe.py`; names are the checkpoint's
(`input_linear`, `output_linear`).
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import fused_experts, router
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Granite mixture of experts.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    shape = shape_of(config)
    attention = shape.attention()
    bias = config.boolean("attention_bias", default=False)
    experts = config.integer("num_local_experts")
    top_k = config.integer("num_experts_per_tok")
    block = f"{prefix}.layers.{{layer}}"
    mixture = f"{block}.block_sparse_moe"

    def layer(_: int) -> Layer:
        tensors = (
            *rms_norm(f"{block}.input_layernorm", shape.hidden),
            *attention_tensors(f"{block}.self_attn", shape.hidden, attention, bias=bias, out_bias=bias),
            *rms_norm(f"{block}.post_attention_layernorm", shape.hidden),
            *router(f"{mixture}.router.layer", shape.hidden, experts),
            *fused_experts(
                mixture,
                shape.hidden,
                shape.width,
                experts,
                names=("input_linear.weight", "output_linear.weight"),
            ),
        )
        feed_forward = FeedForward(0, experts=experts, top_k=top_k, expert_width=shape.width)
        return Layer(tensors, (attention,), feed_forward)

    return causal_decoder(
        config,
        family="granite_moe",
        layers=repeated(layer, (0,) * shape.layers),
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
    )
