"""Qwen and OLMo mixtures of experts: grouped-query attention, softmax routing without a correction bias.

Source: transformers `models/qwen2_moe`, `qwen3_moe`, `qwen3_vl_moe`, `olmoe`, `flex_olmo`.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.blocks.attention import attention_tensors, wide_qk_norms
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.experts import Experts, expert_tensors
from willfit.architectures.blocks.feed_forward import fused_experts, gated_mlp, router
from willfit.architectures.blocks.layer_types import windows_of
from willfit.architectures.blocks.tensors import linear, rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config


@dataclass(frozen=True, slots=True)
class Variant:
    """How a model differs from Qwen3-MoE.

    Attributes
    ----------
    qkv_bias
        Queries, keys and values have biases where the config has no `qkv_bias` or `attention_bias`.
    out_bias
        The output projection has a bias if queries, keys and values have.
    qk_norm
        `heads`: a norm over each head's query and key; `whole`: over all heads together; else none.
    norms
        Names of the two norms of a layer, in its order.
    width
        Config field with the intermediate size of one expert.
    fused
        The checkpoint stores all experts of a layer in two tensors.
    """

    qkv_bias: bool = False
    out_bias: bool = True
    qk_norm: str = "heads"
    norms: tuple[str, str] = ("input_layernorm", "post_attention_layernorm")
    width: str = "moe_intermediate_size"
    fused: bool = False


#: By `model_type`.
VARIANTS: dict[str, Variant] = {
    "flex_olmo": Variant(
        qk_norm="whole",
        norms=("post_attention_layernorm", "post_feedforward_layernorm"),
        width="intermediate_size",
    ),
    "olmoe": Variant(qk_norm="whole", width="intermediate_size"),
    "qwen2_moe": Variant(qkv_bias=True, out_bias=False, qk_norm=""),
    "qwen3_vl_moe_text": Variant(fused=True),
}


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Qwen or OLMo mixture of experts.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    variant = VARIANTS.get(config.text("model_type", default="qwen3_moe"), Variant())
    shape = shape_of(config, width_default=0)
    hidden = shape.hidden
    bias = config.boolean("qkv_bias", "attention_bias", default=variant.qkv_bias)
    block = f"{prefix}.layers.{{layer}}"

    def layer(key: tuple[bool, int]) -> Layer:
        routes, window = key
        attention = shape.attention(window=window)
        tensors = (
            *rms_norm(f"{block}.{variant.norms[0]}", hidden),
            *attention_tensors(
                f"{block}.self_attn",
                hidden,
                attention,
                bias=bias,
                out_bias=bias and variant.out_bias,
                qk_norm=variant.qk_norm == "heads",
            ),
            *(wide_qk_norms(f"{block}.self_attn", attention) if variant.qk_norm == "whole" else ()),
            *rms_norm(f"{block}.{variant.norms[1]}", hidden),
        )
        if routes:
            experts = _experts_of(config, variant)
            return Layer(
                tensors + _mixture(f"{block}.mlp", hidden, experts, variant.fused),
                (attention,),
                experts.feed_forward,
            )
        width = config.integer("intermediate_size")
        return Layer(tensors + gated_mlp(f"{block}.mlp", hidden, width), (attention,), FeedForward(width))

    sparse = _sparse_layers(config, shape.layers)
    return causal_decoder(
        config,
        family="qwen_moe",
        layers=repeated(layer, zip(sparse, windows_of(config, shape.layers), strict=True)),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
    )


def _experts_of(config: Config, variant: Variant) -> Experts:
    return Experts(
        count=config.integer("num_experts"),
        top_k=config.integer("num_experts_per_tok"),
        width=config.integer(variant.width),
        shared_width=config.integer("shared_expert_intermediate_size", default=0),
    )


def _mixture(prefix: str, hidden: int, experts: Experts, fused: bool) -> tuple[Tensor, ...]:
    if fused:
        return (
            *router(f"{prefix}.gate", hidden, experts.count),
            *fused_experts(f"{prefix}.experts", hidden, experts.width, experts.count),
        )
    tensors = expert_tensors(prefix, hidden, experts, shared="shared_expert")
    if experts.shared_width:
        tensors += linear(f"{prefix}.shared_expert_gate", hidden, 1, "mlp")
    return tensors


def _sparse_layers(config: Config, layers: int) -> tuple[bool, ...]:
    """Every `decoder_sparse_step`-th layer has experts, but none that `mlp_only_layers` names."""
    step = config.integer("decoder_sparse_step", default=1)
    dense = set(config.integers("mlp_only_layers"))
    return tuple(index not in dense and (index + 1) % step == 0 for index in range(layers))
