"""RecurrentGemma: gated linear recurrences (RG-LRU), sliding attention in every third layer.

Source: transformers `models/recurrent_gemma`.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.state_space import convolution
from willfit.architectures.blocks.tensors import column, linear, parameter, rms_norm, row
from willfit.architectures.mixers import Recurrent
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config


def build(config: Config) -> Architecture:
    """The architecture of a RecurrentGemma config."""
    shape = shape_of(config)
    hidden, heads = shape.hidden, shape.heads
    width = config.integer("lru_width", default=hidden)
    kernel = config.integer("conv1d_width", default=4)
    attention = shape.attention(window=config.integer("attention_window_size", default=2048))
    recurrent = Recurrent(
        "rg-lru",
        conv_channels=width,
        conv_kernel=kernel,
        recurrent=width,
        heads=heads,
        projected_width=2 * width,
        output_width=width,
    )
    bias = config.boolean("attention_bias", default=False)
    block = "model.layers.{layer}"
    mixer = f"{block}.temporal_block"
    # The config counts the gate's and the value's width together.
    inner = shape.width // 2

    def layer(kind: str) -> Layer:
        attends = kind == "attention"
        tensors = (
            *rms_norm(f"{block}.temporal_pre_norm", hidden),
            *(
                attention_tensors(mixer, hidden, attention, bias=bias, out_bias=True)
                if attends
                else _recurrent_tensors(mixer, hidden, width, heads, kernel)
            ),
            *rms_norm(f"{block}.channel_pre_norm", hidden),
            *gated_mlp(f"{block}.mlp_block", hidden, inner, bias=True),
        )
        return Layer(tensors, (attention if attends else recurrent,), FeedForward(inner))

    kinds = config.strings("block_types", "_block_types") or ["recurrent", "recurrent", "attention"]
    return causal_decoder(
        config,
        family="recurrent_gemma",
        layers=repeated(layer, (kinds[index % len(kinds)] for index in range(shape.layers))),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        tied_default=True,
        norm_name="final_norm",
    )


def _recurrent_tensors(prefix: str, hidden: int, width: int, heads: int, kernel: int) -> tuple[Tensor, ...]:
    by_head, of_head = column(heads), width // heads
    gates: tuple[Tensor, ...] = ()
    for name in ("input", "recurrent"):
        gate = f"{prefix}.rg_lru.{name}_gate"
        gates += (
            Tensor(f"{gate}_weight", (heads, of_head, of_head), "mixer", "other", by_head),
            Tensor(f"{gate}_bias", (heads, of_head), "mixer", "bias", by_head),
        )
    return (
        *linear(f"{prefix}.linear_y", hidden, width, "mixer", bias=True, split=by_head),
        *linear(f"{prefix}.linear_x", hidden, width, "mixer", bias=True, split=by_head),
        *linear(f"{prefix}.linear_out", width, hidden, "mixer", bias=True, split=row(heads)),
        *convolution(f"{prefix}.conv_1d", width, kernel, bias=True, split=by_head),
        *parameter(f"{prefix}.rg_lru.recurrent_param", (width,), "mixer", by_head),
        *gates,
    )
