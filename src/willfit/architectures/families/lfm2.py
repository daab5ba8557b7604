"""LFM2: gated short convolutions and attention, with one MLP or with experts.

Source: transformers `models/lfm2`, `models/lfm2_moe`.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp, router
from willfit.architectures.blocks.layer_types import kinds_of
from willfit.architectures.blocks.state_space import convolution
from willfit.architectures.blocks.tensors import buffer, column, linear, rms_norm, row
from willfit.architectures.mixers import Mixer
from willfit.architectures.mixers.recurrent import short_convolution
from willfit.architectures.model import Architecture, FeedForward, Layer, Split, Tensor
from willfit.checkpoints.config import Config

_MLP = ("w1", "w3", "w2")


def build(config: Config) -> Architecture:
    """The architecture of an LFM2 config, dense or with experts."""
    mixture = config.text("model_type", default="lfm2") == "lfm2_moe"
    shape = shape_of(config, width_default=config.integer("block_ff_dim", default=0))
    kernel = config.integer("conv_L_cache", default=3)
    bias = config.boolean("conv_bias", default=False)
    block = "model.layers.{layer}"
    hidden = shape.hidden

    def layer(key: tuple[str, bool]) -> Layer:
        kind, routes = key
        mixer: Mixer
        if kind == "conv":
            mixer = short_convolution(hidden, kernel)
            tensors = _convolution_tensors(f"{block}.conv", hidden, kernel, bias=bias)
        else:
            mixer = attention = shape.attention()
            tensors = attention_tensors(
                f"{block}.self_attn",
                hidden,
                attention,
                qk_norm=True,
                qk_norm_names=("q_layernorm", "k_layernorm"),
                names=("q_proj", "k_proj", "v_proj", "out_proj"),
            )
        if routes:
            experts = config.integer("num_experts")
            width = config.integer("moe_intermediate_size")
            moe = f"{block}.feed_forward"
            if config.boolean("use_expert_bias", default=True):
                tensors += buffer(f"{moe}.expert_bias", (experts,), "router")
            tensors += gated_mlp(
                f"{moe}.experts.{{expert}}", hidden, width, part="experts", names=_MLP, copies=experts
            )
            tensors += router(f"{moe}.gate", hidden, experts)
            widths = FeedForward(
                0, experts=experts, top_k=config.integer("num_experts_per_tok"), expert_width=width
            )
        else:
            width = shape.width if mixture else _adjusted_width(config, shape.width)
            tensors += gated_mlp(f"{block}.feed_forward", hidden, width, names=_MLP)
            widths = FeedForward(width)
        tensors += rms_norm(f"{block}.operator_norm", hidden)
        tensors += rms_norm(f"{block}.ffn_norm", hidden)
        return Layer(tensors, (mixer,), widths)

    dense = config.integer("num_dense_layers", default=2) if mixture else shape.layers
    return causal_decoder(
        config,
        family="lfm2",
        layers=repeated(
            layer, ((kind, index >= dense) for index, kind in enumerate(_kinds(config, shape.layers)))
        ),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        tied_default=config.boolean("tie_embedding", default=True),
        norm_name="embedding_norm",
    )


def _convolution_tensors(prefix: str, hidden: int, kernel: int, *, bias: bool) -> tuple[Tensor, ...]:
    # in_proj makes two gates and the value, each as wide as the stream.
    thirds = Split(0, hidden, ((hidden, hidden),) * 3)
    return (
        *convolution(f"{prefix}.conv", hidden, kernel, bias=bias, split=column(hidden)),
        *linear(f"{prefix}.in_proj", hidden, 3 * hidden, "mixer", bias=bias, split=thirds),
        *linear(f"{prefix}.out_proj", hidden, hidden, "mixer", bias=bias, split=row(hidden)),
    )


def _kinds(config: Config, layers: int) -> list[str]:
    kinds = kinds_of(config, layers)
    if kinds:
        return kinds
    attending = config.integers("full_attn_idxs") if "full_attn_idxs" in config else range(layers)
    return ["full_attention" if index in attending else "conv" for index in range(layers)]


def _adjusted_width(config: Config, width: int) -> int:
    """Two thirds of the stated width, rounded up to a multiple, unless the config says it is exact."""
    if not config.boolean("block_auto_adjust_ff_dim", default=True):
        return width
    multiple = config.integer("block_multiple_of", default=256)
    scaled = int(config.number("block_ffn_dim_multiplier", default=1.0) * (2 * width // 3))
    return -(-scaled // multiple) * multiple
