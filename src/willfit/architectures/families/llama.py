"""Llama and its many twins: RMS norms, rotary grouped-query attention, a gated MLP.

Source: transformers `models/llama/modeling_llama.py`. The twins differ in biases, query/key norms,
sliding windows and the gate of the MLP, which their configs or the table below state.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp, plain_mlp
from willfit.architectures.blocks.layer_types import windows_of
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


@dataclass(frozen=True, slots=True)
class Variant:
    """How a twin differs from Llama.

    Attributes
    ----------
    qkv_bias, out_bias, mlp_bias
        Names of the config fields that say whether these projections have biases.
    biased
        Whether queries, keys and values have biases if no such field is present.
    qk_norm
        Names of the RMS norms over each head's query and key; empty without them.
    gated
        Gate, up and down projections; False for up and down alone.
    slides
        Every layer slides if the config has a window and no `layer_types`.
    tied
        What an absent `tie_word_embeddings` means.
    """

    qkv_bias: tuple[str, ...] = ("attention_bias",)
    out_bias: tuple[str, ...] = ("attention_bias",)
    mlp_bias: tuple[str, ...] = ("mlp_bias",)
    biased: bool = False
    qk_norm: tuple[str, str] | None = None
    gated: bool = True
    slides: bool = False
    tied: bool = False


#: By `model_type`.
VARIANTS: dict[str, Variant] = {
    "arcee": Variant(gated=False),
    "cwm": Variant(qkv_bias=(), out_bias=()),
    "ernie4_5": Variant(qkv_bias=("use_bias",), out_bias=("use_bias",), mlp_bias=("use_bias",), tied=True),
    "gemma": Variant(tied=True),
    "helium": Variant(out_bias=()),
    "hunyuan_v1_dense": Variant(qk_norm=("query_layernorm", "key_layernorm")),
    "internlm": Variant(qkv_bias=("bias",), out_bias=("bias",)),
    "internlm3": Variant(qkv_bias=("qkv_bias", "attention_bias"), out_bias=("bias",), mlp_bias=("bias",)),
    "minicpm": Variant(tied=True),
    "ministral": Variant(slides=True),
    "ministral3": Variant(slides=True),
    "mistral": Variant(slides=True),
    "qwen2": Variant(qkv_bias=(), out_bias=(), mlp_bias=(), biased=True),
    "qwen3": Variant(qk_norm=("q_norm", "k_norm")),
    "seed_oss": Variant(out_bias=("attention_out_bias",), biased=True),
    "smollm3": Variant(tied=True),
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
    qkv_bias = config.boolean(*variant.qkv_bias, default=variant.biased)
    out_bias = config.boolean(*variant.out_bias, default=False)
    mlp_bias = config.boolean(*variant.mlp_bias, default=False)
    mlp = gated_mlp if variant.gated else plain_mlp

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
                    qk_norm=variant.qk_norm is not None,
                    qk_norm_names=variant.qk_norm or ("", ""),
                ),
                *rms_norm(f"{block}.post_attention_layernorm", shape.hidden),
                *mlp(f"{block}.mlp", shape.hidden, shape.width, bias=mlp_bias),
            ),
            (attention,),
            FeedForward(shape.width, gated=variant.gated),
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
