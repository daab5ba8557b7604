"""Grok-1 (as hpcai-tech stores it) and Grok-2: four norms a layer, eight experts, in Grok-2 an MLP as well.

Source: `modeling_grok1.py` of hpcai-tech/grok-1; SGLang `models/grok.py` for xai-org/grok-2, whose config
names the `model_type` "git".
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.experts import Experts, expert_tensors
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Grok config.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    if "num_experts" not in config and "num_local_experts" not in config:
        raise BadInput(
            f"{config.where}: model_type 'git' without experts",
            "Grok-2 is the one language model of this type; GIT image captioning is not supported",
        )
    first = config.text("model_type", default="grok-1") == "grok-1"
    shape = shape_of(config)
    hidden = shape.hidden
    attention = shape.attention()
    experts = Experts(
        count=config.integer("num_experts", "num_local_experts"),
        top_k=config.integer("num_experts_per_tok"),
        width=config.integer("moe_intermediate_size", default=shape.width),
    )
    shared = shape.width if config.boolean("residual_moe", default=False) else 0
    block = f"{prefix}.layers.{{layer}}"
    module, moe = ("attn", "moe_block") if first else ("self_attn", "block_sparse_moe")

    def norm(name: str) -> tuple[Tensor, ...]:
        suffix = "scale" if first else "weight"
        return (Tensor(f"{block}.{name}.{suffix}", (hidden,), "norm", "norm"),)

    def layer(_: int) -> Layer:
        tensors = (
            *norm("pre_attn_norm"),
            *attention_tensors(f"{block}.{module}", hidden, attention),
            *norm("post_attn_norm"),
            *norm("pre_moe_norm"),
            *expert_tensors(
                f"{block}.{moe}",
                hidden,
                experts,
                names=("linear", "linear_v", "linear_1") if first else ("w1", "w3", "w2"),
            ),
            *(gated_mlp(f"{block}.mlp", hidden, shared) if shared else ()),
            *norm("post_moe_norm"),
        )
        feed_forward = FeedForward(
            shared, experts=experts.count, top_k=experts.top_k, expert_width=experts.width
        )
        return Layer(tensors, (attention,), feed_forward)

    return causal_decoder(
        config,
        family="grok",
        layers=repeated(layer, (0,) * shape.layers),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        tied_default=first,
        prefix=prefix,
        head_name=head_name,
        final_norm=(Tensor(f"{prefix}.norm.scale", (hidden,), "norm", "norm"),)
        if first
        else rms_norm(f"{prefix}.norm", hidden),
    )
