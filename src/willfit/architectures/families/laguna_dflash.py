"""Drafts of Laguna models (DFlash): dense sliding layers over hidden states of the target, no table, no head.

Source: vLLM `model_executor/models/laguna_dflash.py` (0.33). Names and shapes are those of the published
poolside/Laguna-S-2.1-DFlash: 69 tensors, 1,114,977,792 elements. Token table and output projection are the target's.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import fused_qkv
from willfit.architectures.blocks.decoder import bounded_count, dtype_of, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.rotary import ropes_of
from willfit.architectures.blocks.tensors import column, linear, rms_norm, row
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config


def build(config: Config) -> Architecture:
    """The architecture of a Laguna draft's config."""
    shape = shape_of(config)
    hidden, heads = shape.hidden, shape.heads
    settings = config.section("dflash_config") or config
    stated = settings.integers("target_layer_ids")
    taps = len(stated) or bounded_count(config, "num_hidden_layers")
    attention = shape.attention(window=config.integer("sliding_window", default=0))
    block = "layers.{layer}"
    layer = Layer(
        (
            *rms_norm(f"{block}.input_layernorm", hidden),
            *fused_qkv(f"{block}.self_attn.qkv_proj", hidden, attention),
            *linear(
                f"{block}.self_attn.o_proj", attention.output_width, hidden, "attention", split=row(heads)
            ),
            *linear(f"{block}.self_attn.g_proj", hidden, heads, "attention", split=column(heads)),
            *rms_norm(f"{block}.self_attn.q_norm", shape.head_dim),
            *rms_norm(f"{block}.self_attn.k_norm", shape.head_dim),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
            *gated_mlp(f"{block}.mlp", hidden, shape.width),
        ),
        (attention,),
        FeedForward(shape.width),
    )
    norms = tuple(tensor for tap in range(taps) for tensor in rms_norm(f"aux_hidden_norms.{tap}", hidden))
    return Architecture(
        model_type=config.text("model_type", default="laguna"),
        family="laguna_dflash",
        hidden_size=hidden,
        vocab_size=shape.vocab,
        max_positions=config.integer("max_position_embeddings", default=0),
        dtype=dtype_of(config),
        embeddings=(
            *norms,
            *linear("fc", taps * hidden, hidden, "embedding"),
            *rms_norm("hidden_norm", hidden),
        ),
        layers=(layer,) * shape.layers,
        head=rms_norm("norm", hidden),
        tied=False,
        ropes=ropes_of(config, shape.head_dim),
    )
