"""Mixtral and models with its names: Phi-3.5-MoE and MiniMax-M2.

Source: transformers `models/mixtral`, `phimoe`, `minimax_m2`; names of the checkpoints are in its
`conversion_mapping.py`. MiniMax-M2 names multi-token-prediction modules in its config but publishes none.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors, wide_qk_norms
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.experts import Experts, expert_tensors
from willfit.architectures.blocks.layer_types import windows_of
from willfit.architectures.blocks.tensors import layer_norm, rms_norm
from willfit.architectures.model import Architecture, Layer, Tensor
from willfit.checkpoints.config import Config


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Mixtral-like mixture of experts.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    model_type = config.text("model_type", default="mixtral")
    if model_type == "phimoe":
        return _phimoe(config, prefix, head_name)
    shape = shape_of(config)
    block = f"{prefix}.layers.{{layer}}"
    wide_norms = model_type == "minimax_m2" and config.boolean("use_qk_norm", default=True)
    bias = "e_score_correction_bias" if model_type == "minimax_m2" else ""

    def layer(window: int) -> Layer:
        attention = shape.attention(window=window)
        experts = _experts_of(config, shape.width)
        tensors = (
            *rms_norm(f"{block}.input_layernorm", shape.hidden),
            *attention_tensors(f"{block}.self_attn", shape.hidden, attention),
            *(wide_qk_norms(f"{block}.self_attn", attention) if wide_norms else ()),
            *rms_norm(f"{block}.post_attention_layernorm", shape.hidden),
            *_mixture(block, shape.hidden, experts, bias),
        )
        return Layer(tensors, (attention,), experts.feed_forward)

    return causal_decoder(
        config,
        family="mixtral",
        layers=repeated(layer, windows_of(config, shape.layers, always=True)),
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=config.integer("rotary_dim", default=shape.head_dim),
        prefix=prefix,
        head_name=head_name,
    )


def _experts_of(config: Config, width: int) -> Experts:
    return Experts(
        count=config.integer("num_local_experts"),
        top_k=config.integer("num_experts_per_tok"),
        width=width,
    )


def _mixture(block: str, hidden: int, experts: Experts, bias: str = "") -> tuple[Tensor, ...]:
    return expert_tensors(f"{block}.block_sparse_moe", hidden, experts, bias=bias, names=("w1", "w3", "w2"))


def _phimoe(config: Config, prefix: str, head_name: str) -> Architecture:
    """Phi-3.5-MoE: layer norms and biases around Mixtral's experts."""
    shape = shape_of(config)
    bias = config.boolean("attention_bias", default=False)
    block = f"{prefix}.layers.{{layer}}"

    def layer(window: int) -> Layer:
        attention = shape.attention(window=window)
        experts = _experts_of(config, shape.width)
        tensors = (
            *layer_norm(f"{block}.input_layernorm", shape.hidden),
            *attention_tensors(f"{block}.self_attn", shape.hidden, attention, bias=bias, out_bias=bias),
            *layer_norm(f"{block}.post_attention_layernorm", shape.hidden),
            *_mixture(block, shape.hidden, experts),
        )
        return Layer(tensors, (attention,), experts.feed_forward)

    return causal_decoder(
        config,
        family="mixtral",
        layers=repeated(layer, windows_of(config, shape.layers, always=True)),
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
        head_bias=config.boolean("lm_head_bias", default=False),
        final_norm=layer_norm(f"{prefix}.norm", shape.hidden),
    )
