"""ERNIE 4.5 mixtures of experts, and the text model of ERNIE 4.5-VL.

Source: transformers `models/ernie4_5_moe`, `ernie4_5_vl_moe`; names are the checkpoints'. The router's
`e_score_correction_bias` is a parameter there. The VL model's layers hold a second set of experts, for image
tokens, numbered after those for text.
"""

from __future__ import annotations

from collections.abc import Sequence

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import bounded_count, causal_decoder, repeated, shape_of
from willfit.architectures.blocks.experts import Experts, expert_tensors
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.layer_types import sparse_layers
from willfit.architectures.blocks.mtp import mtp_modules
from willfit.architectures.blocks.tensors import linear, parameter, rms_norm
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of an ERNIE 4.5 mixture of experts.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    shape = shape_of(config)
    hidden = shape.hidden
    attention = shape.attention()
    bias = config.boolean("use_bias", default=False)
    widths = _expert_widths(config)
    mixture = Experts(
        count=config.integer("moe_num_experts", "num_experts"),
        top_k=config.integer("moe_k", "num_experts_per_tok"),
        width=widths[0],
        shared_width=widths[0] * config.integer("moe_num_shared_experts", default=0),
    )

    def layer(block: str, routes: bool) -> Layer:
        tensors = (
            *rms_norm(f"{block}.input_layernorm", hidden),
            *attention_tensors(f"{block}.self_attn", hidden, attention, bias=bias, out_bias=bias),
            *rms_norm(f"{block}.post_attention_layernorm", hidden),
        )
        if routes:
            tensors += _mixture(f"{block}.mlp", hidden, mixture, widths)
            return Layer(tensors, (attention,), mixture.feed_forward)
        tensors += gated_mlp(f"{block}.mlp", hidden, shape.width, bias=bias)
        return Layer(tensors, (attention,), FeedForward(shape.width))

    def module(index: int) -> Layer:
        dense = layer(f"{prefix}.mtp_block.{index}", routes=False)
        extra = (
            *rms_norm(f"{prefix}.mtp_emb_norm.{index}", hidden),
            *rms_norm(f"{prefix}.mtp_hidden_norm.{index}", hidden),
            *linear(f"{prefix}.mtp_linear_proj.{index}", 2 * hidden, hidden, "mtp", bias=bias),
        )
        return Layer(dense.tensors + extra, dense.mixers, dense.feed_forward)

    count = bounded_count(config, "num_nextn_predict_layers", default=0)
    return causal_decoder(
        config,
        family="ernie_moe",
        layers=repeated(
            lambda routes: layer(f"{prefix}.layers.{{layer}}", routes), _sparse_layers(config, shape.layers)
        ),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        tied_default=True,
        prefix=prefix,
        head_name=head_name,
        head_bias=bias,
        **mtp_modules([module(index) for index in range(count)]),
    )


def _expert_widths(config: Config) -> list[int]:
    """Intermediate size of one expert for text and, in a VL model, of one for images."""
    if not isinstance(config.raw("moe_intermediate_size"), list):
        return [config.integer("moe_intermediate_size")]
    widths = config.integers("moe_intermediate_size")
    if not 1 <= len(widths) <= 2:
        raise BadInput(f"{config.where}: 'moe_intermediate_size' has {len(widths)} entries, expected 2")
    return widths


def _mixture(prefix: str, hidden: int, experts: Experts, widths: Sequence[int]) -> tuple[Tensor, ...]:
    tensors = expert_tensors(prefix, hidden, experts)
    for width in widths[1:]:
        tensors += (
            Tensor(f"{prefix}.gate.weight_1", (experts.count, hidden), "router"),
            *gated_mlp(f"{prefix}.experts.{{expert}}", hidden, width, part="experts", copies=experts.count),
        )
    correction = f"{prefix}.moe_statics.e_score_correction_bias"
    return tensors + parameter(correction, (len(widths), experts.count), "router")


def _sparse_layers(config: Config, layers: int) -> tuple[bool, ...]:
    if "moe_layer_start_index" not in config:
        return sparse_layers(config, layers)
    start = config.integer("moe_layer_start_index")
    end = int(config.number("moe_layer_end_index", default=-1))
    step = config.integer("moe_layer_interval", default=1)
    last = layers - 1 if end < 0 else end
    return tuple(start <= index <= last and (index + 1) % step == 0 for index in range(layers))
