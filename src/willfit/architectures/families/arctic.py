"""Snowflake Arctic: a small dense MLP in parallel with experts.

Source: `modeling_arctic.py` of the checkpoint.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.experts import Experts, expert_tensors
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.layer_types import windows_of
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config

_NAMES = ("w1", "w3", "w2")


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of an Arctic config.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    shape = shape_of(config)
    hidden = shape.hidden
    step = config.integer("moe_layer_frequency", default=2)
    residual = config.boolean("parallel_attn_mlp_res", default=False)
    block = f"{prefix}.layers.{{layer}}"

    def layer(key: tuple[bool, int]) -> Layer:
        routes, window = key
        attention = shape.attention(window=window)
        tensors = (
            *rms_norm(f"{block}.input_layernorm", hidden),
            *attention_tensors(f"{block}.self_attn", hidden, attention),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
        )
        moe = f"{block}.block_sparse_moe"
        if not routes:
            tensors += gated_mlp(f"{moe}.mlp", hidden, shape.width, names=_NAMES)
            return Layer(tensors, (attention,), FeedForward(shape.width))
        experts = Experts(
            count=config.integer("num_local_experts"),
            top_k=config.integer("num_experts_per_tok"),
            width=shape.width,
        )
        tensors += expert_tensors(moe, hidden, experts, names=_NAMES)
        if residual:
            tensors += rms_norm(f"{block}.residual_layernorm", hidden)
            tensors += gated_mlp(f"{block}.residual_mlp", hidden, hidden, names=_NAMES)
        feed_forward = FeedForward(
            hidden if residual else 0,
            experts=experts.count,
            top_k=experts.top_k,
            expert_width=shape.width,
        )
        return Layer(tensors, (attention,), feed_forward)

    windows = windows_of(config, shape.layers, always=True)
    return causal_decoder(
        config,
        family="arctic",
        layers=repeated(layer, [((index + 1) % step == 0, window) for index, window in enumerate(windows)]),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
    )
