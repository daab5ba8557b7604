"""StableLM: layer norms, partial rotary embedding, optionally one norm for attention and MLP.

Source: transformers `models/stablelm/modeling_stablelm.py`. StableLM 2 12B normalises each head's queries and
keys with a scale of its own.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import bounded_count, causal_decoder, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.tensors import layer_norm
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a StableLM config."""
    config = config.with_defaults(partial_rotary_factor=config.number("rope_pct", default=0.25))
    shape = shape_of(config)
    attention = shape.attention()
    block = f"{prefix}.layers.{{layer}}"
    head_norms = []
    if config.boolean("qk_layernorm", default=False):
        query_heads = bounded_count(config, "num_attention_heads")
        key_heads = bounded_count(config, "num_key_value_heads", default=query_heads)
        head_norms = [("q_layernorm", query_heads), ("k_layernorm", key_heads)]
    layer = Layer(
        (
            *layer_norm(f"{block}.input_layernorm", shape.hidden),
            *attention_tensors(
                f"{block}.self_attn",
                shape.hidden,
                attention,
                bias=config.boolean("use_qkv_bias", default=False),
            ),
            *(
                tensor
                for name, heads in head_norms
                for head in range(heads)
                for tensor in layer_norm(f"{block}.self_attn.{name}.norms.{head}", shape.head_dim, bias=False)
            ),
            *(
                ()
                if config.boolean("use_parallel_residual", default=False)
                else layer_norm(f"{block}.post_attention_layernorm", shape.hidden)
            ),
            *gated_mlp(f"{block}.mlp", shape.hidden, shape.width),
        ),
        (attention,),
        FeedForward(shape.width),
    )
    return causal_decoder(
        config,
        family="stablelm",
        layers=(layer,) * shape.layers,
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
        final_norm=layer_norm(f"{prefix}.norm", shape.hidden),
    )
