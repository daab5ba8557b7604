"""Trinity (`afmoe`): gated attention with windows, four norms a layer, experts after some dense layers.

Source: transformers `models/afmoe/modeling_afmoe.py`. The router's `expert_bias` is a parameter there.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.experts import expert_tensors, experts_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.layer_types import windows_of
from willfit.architectures.blocks.tensors import column, linear, parameter, rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Trinity config.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    shape = shape_of(config)
    hidden = shape.hidden
    bias = config.boolean("attention_bias", default=False)
    dense = config.integer("num_dense_layers", default=0)
    windows = windows_of(
        config, shape.layers, default_pattern=config.integer("global_attn_every_n_layers", default=4)
    )
    block = f"{prefix}.layers.{{layer}}"

    def layer(key: tuple[bool, int]) -> Layer:
        routes, window = key
        attention = shape.attention(window=window)
        tensors = (
            *rms_norm(f"{block}.input_layernorm", hidden),
            *attention_tensors(
                f"{block}.self_attn", hidden, attention, bias=bias, out_bias=bias, qk_norm=True
            ),
            *linear(
                f"{block}.self_attn.gate_proj",
                hidden,
                attention.output_width,
                "attention",
                split=column(shape.heads),
            ),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
            *rms_norm(f"{block}.pre_mlp_layernorm", hidden),
            *rms_norm(f"{block}.post_mlp_layernorm", hidden),
        )
        if routes:
            experts = experts_of(config)
            tensors += (
                *expert_tensors(f"{block}.mlp", hidden, experts, gate="router.gate"),
                *parameter(f"{block}.mlp.expert_bias", (experts.count,), "router"),
            )
            return Layer(tensors, (attention,), experts.feed_forward)
        tensors += gated_mlp(f"{block}.mlp", hidden, shape.width)
        return Layer(tensors, (attention,), FeedForward(shape.width))

    keys = [(index >= dense, window) for index, window in enumerate(windows)]
    return causal_decoder(
        config,
        family="afmoe",
        layers=repeated(layer, keys),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
    )
