"""Laguna (Poolside): gated heads, as many as each layer says, experts after the dense layers.

Source: transformers `models/laguna/modeling_laguna.py`; names are the checkpoints'. A published draft of such a
model (DFlash) has another layout.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.experts import Experts, expert_tensors
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.layer_types import sparse_layers, windows_of
from willfit.architectures.blocks.tensors import column, linear, rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config
from willfit.errors import BadInput


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Laguna config.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    shape = shape_of(config, width_default=0)
    hidden = shape.hidden
    bias = config.boolean("attention_bias", default=False)
    gating = config.raw("gating")
    block = f"{prefix}.layers.{{layer}}"
    experts = Experts(
        count=config.integer("num_experts"),
        top_k=config.integer("num_experts_per_tok"),
        width=config.integer("moe_intermediate_size"),
        shared_width=config.integer("shared_expert_intermediate_size", default=0),
    )

    def layer(key: tuple[bool, int, int]) -> Layer:
        routes, window, heads = key
        attention = shape.attention(window=window, heads=heads)
        tensors = (
            *rms_norm(f"{block}.input_layernorm", hidden),
            *attention_tensors(
                f"{block}.self_attn", hidden, attention, bias=bias, out_bias=bias, qk_norm=True
            ),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
        )
        if gating is not False:
            gates = attention.output_width if gating == "per-element" else heads
            tensors += linear(f"{block}.self_attn.g_proj", hidden, gates, "attention", split=column(heads))
        if routes:
            tensors += expert_tensors(
                f"{block}.mlp",
                hidden,
                experts,
                bias="experts.e_score_correction_bias",
                shared="shared_expert",
            )
            return Layer(tensors, (attention,), experts.feed_forward)
        tensors += gated_mlp(f"{block}.mlp", hidden, shape.width)
        return Layer(tensors, (attention,), FeedForward(shape.width))

    keys = zip(
        _sparse(config, shape.layers),
        windows_of(config, shape.layers),
        _heads(config, shape.layers, shape.heads),
        strict=True,
    )
    return causal_decoder(
        config,
        family="laguna",
        layers=repeated(layer, keys),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
    )


def _sparse(config: Config, layers: int) -> tuple[bool, ...]:
    """Files list the dense layers (`mlp_only_layers`) or the kind of each layer; by default the first is dense."""
    if "mlp_layer_types" in config:
        return sparse_layers(config, layers)
    dense = config.integers("mlp_only_layers") if "mlp_only_layers" in config else [0]
    return tuple(index not in dense for index in range(layers))


def _heads(config: Config, layers: int, usual: int) -> tuple[int, ...]:
    stated = config.integers("num_attention_heads_per_layer")
    if not stated:
        return (usual,) * layers
    if len(stated) != layers:
        raise BadInput(
            f"{config.where}: 'num_attention_heads_per_layer' has {len(stated)} entries for {layers} layers"
        )
    return tuple(stated)
