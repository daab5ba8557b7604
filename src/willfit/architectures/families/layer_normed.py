"""Decoders with Llama's attention, but layer norms: Nemotron, Jais 2, StarCoder 2, Orion.

Sources: transformers `models/nemotron`, `models/jais2`, `models/starcoder2`; Orion's published
`modeling_orion.py`. They differ in biases and in the projections of the MLP.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp, plain_mlp
from willfit.architectures.blocks.layer_types import windows_of
from willfit.architectures.blocks.tensors import layer_norm
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


@dataclass(frozen=True, slots=True)
class Variant:
    """How one of these families is written.

    Attributes
    ----------
    bias, mlp_bias
        Names of the config fields that say whether the attention's and the MLP's projections have biases.
    biased
        Whether they have biases if no such field is present.
    mlp
        Names of the up and down projections; None for gate, up and down.
    slides
        Every layer slides if the config has a window.
    tied
        What an absent `tie_word_embeddings` means.
    """

    bias: tuple[str, ...] = ("attention_bias",)
    mlp_bias: tuple[str, ...] = ("mlp_bias",)
    biased: bool = False
    mlp: tuple[str, str] | None = ("up_proj", "down_proj")
    slides: bool = False
    tied: bool = False


#: By `model_type`.
VARIANTS: dict[str, Variant] = {
    "jais2": Variant(biased=True),
    "nemotron": Variant(),
    "orion": Variant(mlp=None),
    "starcoder2": Variant(
        bias=("use_bias",),
        mlp_bias=("use_bias",),
        biased=True,
        mlp=("c_fc", "c_proj"),
        slides=True,
        tied=True,
    ),
}


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of such a config."""
    variant = VARIANTS[config.text("model_type")]
    shape = shape_of(config)
    bias = config.boolean(*variant.bias, default=variant.biased)
    mlp_bias = config.boolean(*variant.mlp_bias, default=variant.biased)

    def layer(window: int) -> Layer:
        attention = shape.attention(window=window)
        block = f"{prefix}.layers.{{layer}}"
        if variant.mlp is None:
            mlp = gated_mlp(f"{block}.mlp", shape.hidden, shape.width, bias=mlp_bias)
        else:
            mlp = plain_mlp(f"{block}.mlp", shape.hidden, shape.width, bias=mlp_bias, names=variant.mlp)
        return Layer(
            (
                *layer_norm(f"{block}.input_layernorm", shape.hidden),
                *attention_tensors(f"{block}.self_attn", shape.hidden, attention, bias=bias, out_bias=bias),
                *layer_norm(f"{block}.post_attention_layernorm", shape.hidden),
                *mlp,
            ),
            (attention,),
            FeedForward(shape.width, gated=variant.mlp is None),
        )

    return causal_decoder(
        config,
        family="layer_normed",
        layers=repeated(layer, windows_of(config, shape.layers, always=variant.slides)),
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        tied_default=variant.tied,
        prefix=prefix,
        head_name=head_name,
        final_norm=layer_norm(f"{prefix}.norm", shape.hidden),
    )
