"""Layers of the BART lineage (BART, mBART, Whisper): biased projections, layer norms, a plain MLP.

Source: transformers `models/bart/modeling_bart.py` and `models/whisper/modeling_whisper.py`. Whether a
norm stands before or after its block changes no tensor.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.feed_forward import plain_mlp
from willfit.architectures.blocks.tensors import layer_norm
from willfit.architectures.mixers import Attention, CrossAttention
from willfit.architectures.model import FeedForward, Layer, Tensor

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


def encoder_layer(prefix: str, hidden: int, heads: int, width: int, *, key_bias: bool = True) -> Layer:
    """One encoder layer: self-attention over the whole source, and an MLP.

    Parameters
    ----------
    prefix
        Name of the layer, with `{layer}`.
    hidden, heads, width
        Width of the residual stream, attention heads, intermediate size.
    key_bias
        Whether the key projection has a bias (Whisper's has none).
    """
    attention = _self_attention(hidden, heads, keeps_cache=False)
    return Layer(
        (
            *_attention(f"{prefix}.self_attn", hidden, attention, key_bias),
            *layer_norm(f"{prefix}.self_attn_layer_norm", hidden),
            *plain_mlp(prefix, hidden, width, bias=True, names=("fc1", "fc2")),
            *layer_norm(f"{prefix}.final_layer_norm", hidden),
        ),
        (attention,),
        FeedForward(width, gated=False),
    )


def decoder_layer(
    prefix: str, hidden: int, heads: int, width: int, *, key_bias: bool = True, source_tokens: int = 0
) -> Layer:
    """One decoder layer: causal self-attention, attention over the encoder's output, and an MLP.

    Parameters
    ----------
    prefix, hidden, heads, width, key_bias
        As in `encoder_layer`.
    source_tokens
        Encoder positions if the model fixes them, else 0.
    """
    attention = _self_attention(hidden, heads, keeps_cache=True)
    return Layer(
        (
            *_attention(f"{prefix}.self_attn", hidden, attention, key_bias),
            *layer_norm(f"{prefix}.self_attn_layer_norm", hidden),
            *_attention(f"{prefix}.encoder_attn", hidden, attention, key_bias),
            *layer_norm(f"{prefix}.encoder_attn_layer_norm", hidden),
            *plain_mlp(prefix, hidden, width, bias=True, names=("fc1", "fc2")),
            *layer_norm(f"{prefix}.final_layer_norm", hidden),
        ),
        (attention, CrossAttention(heads, heads, hidden // heads, source_tokens)),
        FeedForward(width, gated=False),
    )


def _self_attention(hidden: int, heads: int, *, keeps_cache: bool) -> Attention:
    return Attention(heads, heads, hidden // heads, hidden // heads, keeps_cache=keeps_cache)


def _attention(prefix: str, hidden: int, attention: Attention, key_bias: bool) -> tuple[Tensor, ...]:
    return attention_tensors(
        prefix, hidden, attention, bias=True, out_bias=True, key_bias=key_bias, names=_PROJECTIONS
    )
