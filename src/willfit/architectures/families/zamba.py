"""Zamba: Mamba-1 layers with several heads, and one attention block whose weights all hybrid layers share.

Source: transformers `models/zamba`. A hybrid layer runs the shared block on the residual stream joined with
the embeddings, so its attention is twice as wide as the stream; each hybrid layer keeps its own cache.
"""

from __future__ import annotations

from math import ceil

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.layer_types import kinds_of
from willfit.architectures.blocks.state_space import convolution
from willfit.architectures.blocks.tensors import column, linear, parameter, rms_norm, row
from willfit.architectures.mixers.recurrent import mamba
from willfit.architectures.model import Architecture, FeedForward, Layer, Split, Tensor
from willfit.checkpoints.config import Config


def build(config: Config) -> Architecture:
    """The architecture of a Zamba config."""
    shape = shape_of(config)
    hidden = shape.hidden
    width = config.integer("attention_hidden_size", default=2 * hidden)
    head_dim = config.integer("attention_head_dim", default=width // shape.heads)
    attention = shape.attention(head_dim=head_dim, value_dim=head_dim)
    heads = config.integer("n_mamba_heads", default=2)
    inner = config.integer("mamba_expand", default=2) * hidden
    state, kernel = config.integer("mamba_d_state", default=16), config.integer("mamba_d_conv", default=4)
    automatic = config.raw("mamba_dt_rank") in (None, "auto")
    rank = ceil(hidden / 16) if automatic else config.integer("mamba_dt_rank")
    recurrent = mamba(inner, state, kernel, rank)

    def layer(kind: str) -> Layer:
        block = "model.layers.{layer}"
        inside = f"{block}.mamba_decoder" if kind == "hybrid" else block
        tensors = (
            *_mamba_tensors(config, f"{inside}.mamba", hidden, inner, heads, state, kernel, rank),
            *rms_norm(f"{inside}.input_layernorm", hidden),
        )
        if kind != "hybrid":
            return Layer(tensors, (recurrent,))
        tensors = linear(f"{block}.linear", hidden, hidden, "attention") + tensors
        return Layer(tensors, (attention, recurrent), FeedForward(shape.width))

    kinds = kinds_of(config, shape.layers) or _default_kinds(config, shape.layers)
    shared: tuple[Tensor, ...] = ()
    if "hybrid" in kinds:
        block = f"model.layers.{kinds.index('hybrid')}.shared_transf"
        query, key, value, output = attention_tensors(f"{block}.self_attn", width, attention)
        shared = (
            query,
            key,
            value,
            *linear(
                output.name.removesuffix(".weight"),
                attention.output_width,
                hidden,
                "attention",
                split=output.split,
            ),
            *gated_mlp(f"{block}.feed_forward", hidden, shape.width),
            *rms_norm(f"{block}.input_layernorm", width),
            *rms_norm(f"{block}.pre_ff_layernorm", hidden),
        )
    return causal_decoder(
        config,
        family="zamba",
        layers=repeated(layer, kinds),
        hidden=hidden,
        vocab=shape.vocab,
        tied_default=True,
        norm_name="final_layernorm",
        shared=shared,
    )


def _default_kinds(config: Config, layers: int) -> list[str]:
    period = config.integer("attn_layer_period", default=6)
    offset = config.integer("attn_layer_offset", default=4)
    regular = ["hybrid" if index % period == offset else "mamba" for index in range(3, layers)]
    return ["mamba", "mamba", "hybrid", *regular][:layers]


def _mamba_tensors(
    config: Config, prefix: str, hidden: int, inner: int, heads: int, state: int, kernel: int, rank: int
) -> tuple[Tensor, ...]:
    bias = config.boolean("mamba_proj_bias", default=False)
    conv_bias = config.boolean("mamba_conv_bias", default=True)
    by_head, of_head = column(heads), inner // heads
    return (
        Tensor(f"{prefix}.x_proj_weight", (heads, rank + 2 * state, of_head), "mixer", "linear", by_head),
        Tensor(f"{prefix}.dt_proj_weight", (heads, of_head, rank), "mixer", "linear", by_head),
        Tensor(f"{prefix}.dt_proj_bias", (heads, of_head), "mixer", "bias", by_head),
        *parameter(f"{prefix}.A_log", (heads, of_head, state), "mixer", by_head),
        *parameter(f"{prefix}.D", (heads, of_head), "mixer", by_head),
        *convolution(f"{prefix}.conv1d", inner, kernel, bias=conv_bias, split=by_head),
        *linear(
            f"{prefix}.in_proj",
            hidden,
            2 * inner,
            "mixer",
            bias=bias,
            split=Split(0, heads, ((2 * inner, heads),)),
        ),
        *linear(f"{prefix}.out_proj", inner, hidden, "mixer", bias=bias, split=row(heads)),
    )
