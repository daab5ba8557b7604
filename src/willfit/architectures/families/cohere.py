"""Cohere Command R and R7B: attention and MLP side by side behind one layer norm without a shift.

Sources: transformers `models/cohere/modeling_cohere.py`, `models/cohere2/modeling_cohere2.py`. Every fourth
layer of the second generation sees everything, the others slide.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.layer_types import windows_of
from willfit.architectures.blocks.tensors import column, layer_norm
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Cohere config."""
    second = config.text("model_type", default="cohere") == "cohere2"
    if second:
        config = config.with_defaults(sliding_window=4096)
    shape = shape_of(config)
    bias = config.boolean("attention_bias", default=False)

    def layer(window: int) -> Layer:
        attention = shape.attention(window=window)
        block = f"{prefix}.layers.{{layer}}"
        query_key_norms = tuple(
            Tensor(f"{block}.self_attn.{name}.weight", (heads, shape.head_dim), "norm", "norm", column(heads))
            for name, heads in (("q_norm", shape.heads), ("k_norm", shape.kv_heads))
        )
        return Layer(
            (
                *layer_norm(f"{block}.input_layernorm", shape.hidden, bias=False),
                *attention_tensors(f"{block}.self_attn", shape.hidden, attention, bias=bias, out_bias=bias),
                *(query_key_norms if config.boolean("use_qk_norm", default=False) else ()),
                *gated_mlp(f"{block}.mlp", shape.hidden, shape.width),
            ),
            (attention,),
            FeedForward(shape.width),
        )

    return causal_decoder(
        config,
        family="cohere",
        layers=repeated(layer, windows_of(config, shape.layers, default_pattern=4 if second else 1)),
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        tied_default=True,
        prefix=prefix,
        head_name=head_name,
        final_norm=layer_norm(f"{prefix}.norm", shape.hidden, bias=False),
        # The first Command R states here how far it was trained, beside a shorter `max_position_embeddings`.
        max_positions=config.integer("model_max_length", "max_position_embeddings", default=0),
    )
