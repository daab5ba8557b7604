"""Llama and its many twins: RMS norms, rotary grouped-query attention, a gated MLP.

Source: transformers `models/llama/modeling_llama.py`. The twins differ in biases, query/key norms and
sliding windows, which their configs or the table below state.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.layer_types import windows_of
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


@dataclass(frozen=True, slots=True)
class Variant:
    """How a twin differs from Llama.

    Attributes
    ----------
    qkv_bias, out_bias
        Biases of the attention projections where the config has no `attention_bias`.
    qk_norm
        RMS norm over each head's query and key.
    slides
        Every layer slides if the config has a window and no `layer_types`.
    tied
        What an absent `tie_word_embeddings` means.
    """

    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    slides: bool = False
    tied: bool = False


#: By `model_type`.
VARIANTS: dict[str, Variant] = {
    "llama": Variant(),
    "mistral": Variant(slides=True),
    "ministral3": Variant(slides=True),
    "qwen2": Variant(qkv_bias=True),
    "qwen3": Variant(qk_norm=True),
}


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Llama-like config.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    variant = VARIANTS.get(config.text("model_type", default="llama"), Variant())
    shape = shape_of(config)
    qkv_bias = config.boolean("attention_bias", default=variant.qkv_bias)
    out_bias = config.boolean("attention_bias", default=variant.out_bias)
    mlp_bias = config.boolean("mlp_bias", default=False)

    def layer(window: int) -> Layer:
        attention = shape.attention(window=window)
        block = f"{prefix}.layers.{{layer}}"
        return Layer(
            (
                *rms_norm(f"{block}.input_layernorm", shape.hidden),
                *attention_tensors(
                    f"{block}.self_attn",
                    shape.hidden,
                    attention,
                    bias=qkv_bias,
                    out_bias=out_bias,
                    qk_norm=variant.qk_norm,
                ),
                *rms_norm(f"{block}.post_attention_layernorm", shape.hidden),
                *gated_mlp(f"{block}.mlp", shape.hidden, shape.width, bias=mlp_bias),
            ),
            (attention,),
            FeedForward(shape.width),
        )

    return causal_decoder(
        config,
        family="llama",
        layers=repeated(layer, windows_of(config, shape.layers, always=variant.slides)),
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        tied_default=variant.tied,
        prefix=prefix,
        head_name=head_name,
    )
