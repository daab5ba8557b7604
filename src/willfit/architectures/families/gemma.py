"""Gemma 2, Gemma 3 and VaultGemma: RMS norms around attention and MLP, alternating sliding windows.

Source: transformers `models/gemma2`, `models/gemma3`, `models/vaultgemma` (the first Gemma has Llama's
layout). The class defaults stand in for fields that published text sections leave out: Gemma 3's
multimodal configs name no head counts.
"""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.layer_types import windows_of
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config

#: The class defaults of Gemma3TextConfig that real configs rely on.
_GEMMA3_DEFAULTS = {
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208,
    "sliding_window": 4096, "max_position_embeddings": 131072, "rope_local_base_freq": 10000.0,
}  # fmt: skip
_GEMMA2_DEFAULTS = {"head_dim": 256, "sliding_window": 4096}


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Gemma 2, Gemma 3 (text) or VaultGemma config."""
    model_type = config.text("model_type", default="gemma3_text")
    third = model_type in ("gemma3", "gemma3_text")
    config = config.with_defaults(**(_GEMMA3_DEFAULTS if third else _GEMMA2_DEFAULTS))
    shape = shape_of(config)
    bias = config.boolean("attention_bias", default=False)
    # EmbeddingGemma is a Gemma 3 that looks both ways, half of the window to each side.
    both_ways = third and config.raw("use_bidirectional_attention") is True
    norms_after = model_type != "vaultgemma"

    def layer(window: int) -> Layer:
        attention = shape.attention(window=window // 2 + 1 if both_ways and window else window)
        attention = replace(attention, keeps_cache=not both_ways)
        block = f"{prefix}.layers.{{layer}}"
        after_attention = rms_norm(f"{block}.post_attention_layernorm", shape.hidden)
        after_mlp = rms_norm(f"{block}.post_feedforward_layernorm", shape.hidden)
        return Layer(
            (
                *rms_norm(f"{block}.input_layernorm", shape.hidden),
                *attention_tensors(
                    f"{block}.self_attn", shape.hidden, attention, bias=bias, out_bias=bias, qk_norm=third
                ),
                *(after_attention if norms_after else ()),
                *rms_norm(f"{block}.pre_feedforward_layernorm", shape.hidden),
                *gated_mlp(f"{block}.mlp", shape.hidden, shape.width),
                *(after_mlp if norms_after else ()),
            ),
            (attention,),
            FeedForward(shape.width),
        )

    windows = windows_of(config, shape.layers, default_pattern=6 if third else 2)
    return causal_decoder(
        config,
        family="gemma",
        layers=repeated(layer, windows),
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        tied_default=True,
        prefix=prefix,
        head_name=head_name,
        causal=not both_ways,
        encoder_only=both_ways,
    )
