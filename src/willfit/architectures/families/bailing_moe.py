"""Ling and Ring (`bailing_moe`): fused query/key/value projection, DeepSeek's experts, names of their own.

Source: `modeling_bailing_moe_v2.py` of the checkpoints.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import fused_qkv
from willfit.architectures.blocks.decoder import bounded_count, causal_decoder, repeated, shape_of
from willfit.architectures.blocks.experts import expert_tensors, experts_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.layer_types import sparse_layers
from willfit.architectures.blocks.mtp import mtp_modules
from willfit.architectures.blocks.tensors import linear, rms_norm, row
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Ling or Ring config.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    shape = shape_of(config)
    hidden = shape.hidden
    attention = shape.attention()
    qkv_bias = config.boolean("use_qkv_bias", default=False)
    bias = config.boolean("use_bias", default=False)
    qk_norm = config.boolean("use_qk_norm", default=False)
    router_bias = config.boolean("moe_router_enable_expert_bias", default=False)
    block = f"{prefix}.layers.{{layer}}"

    def layer(routes: bool, extra: tuple[Tensor, ...] = ()) -> Layer:
        module = f"{block}.attention"
        tensors = (
            *rms_norm(f"{block}.input_layernorm", hidden),
            *fused_qkv(f"{module}.query_key_value", hidden, attention, bias=qkv_bias),
            *linear(
                f"{module}.dense",
                attention.output_width,
                hidden,
                "attention",
                bias=bias,
                split=row(shape.heads),
            ),
            *(rms_norm(f"{module}.query_layernorm", shape.head_dim) if qk_norm else ()),
            *(rms_norm(f"{module}.key_layernorm", shape.head_dim) if qk_norm else ()),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
        )
        if routes:
            experts = experts_of(config)
            tensors += expert_tensors(
                f"{block}.mlp", hidden, experts, bias="gate.expert_bias" if router_bias else ""
            )
            return Layer(tensors + extra, (attention,), experts.feed_forward)
        tensors += gated_mlp(f"{block}.mlp", hidden, shape.width, bias=bias)
        return Layer(tensors + extra, (attention,), FeedForward(shape.width))

    module = layer(
        True,
        (
            *rms_norm(f"{block}.enorm", hidden),
            *rms_norm(f"{block}.hnorm", hidden),
            *linear(f"{block}.eh_proj", 2 * hidden, hidden, "mtp"),
            *rms_norm(f"{block}.final_layernorm", hidden),
        ),
    )
    modules = (module,) * bounded_count(config, "num_nextn_predict_layers", default=0)
    return causal_decoder(
        config,
        family="bailing_moe",
        layers=repeated(layer, sparse_layers(config, shape.layers)),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        embed_name="word_embeddings",
        head_name=head_name,
        **mtp_modules(modules, first=shape.layers),
    )
