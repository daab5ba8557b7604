"""Pure state-space models: Mamba, Falcon Mamba, Mamba-2.

Source: transformers `models/mamba`, `models/falcon_mamba`, `models/mamba2`. A layer is a norm and a mixer;
there is no MLP and nothing grows with the sequence.
"""

from __future__ import annotations

from math import ceil

from willfit.architectures.blocks.decoder import causal_decoder, layer_count, repeated
from willfit.architectures.blocks.state_space import mamba2_tensors, mamba_tensors, state_dtype_of
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.mixers.recurrent import mamba, mamba2
from willfit.architectures.model import Architecture, Layer
from willfit.checkpoints.config import Config


def build(config: Config) -> Architecture:
    """The architecture of a pure state-space config."""
    model_type = config.text("model_type", default="mamba")
    second = model_type == "mamba2"
    hidden = config.integer("hidden_size", "d_model")
    make = _mamba2_layer if second else _mamba_layer
    return causal_decoder(
        config,
        family="mamba",
        layers=repeated(
            lambda _: make(config, hidden),
            (0,) * layer_count(config, "num_hidden_layers", "n_layer", "n_layers"),
        ),
        hidden=hidden,
        vocab=config.integer("vocab_size"),
        tied_default=not second,
        prefix="backbone",
        embed_name="embeddings",
        norm_name="norm_f",
    )


def _mamba_layer(config: Config, hidden: int) -> Layer:
    inner = config.integer(
        "intermediate_size", "d_inner", default=config.integer("expand", default=2) * hidden
    )
    state = config.integer("state_size", default=16)
    kernel = config.integer("conv_kernel", default=4)
    rank = (
        ceil(hidden / 16)
        if config.raw("time_step_rank") in (None, "auto")
        else config.integer("time_step_rank")
    )
    tensors = mamba_tensors(
        "backbone.layers.{layer}.mixer",
        hidden,
        inner,
        state,
        kernel,
        rank,
        conv_bias=config.boolean("use_conv_bias", default=True),
        bias=config.boolean("use_bias", default=False),
    )
    return Layer(
        rms_norm("backbone.layers.{layer}.norm", hidden) + tensors, (mamba(inner, state, kernel, rank),)
    )


def _mamba2_layer(config: Config, hidden: int) -> Layer:
    heads, head_dim = config.integer("num_heads"), config.integer("head_dim")
    groups = config.integer("n_groups", default=1)
    state = config.integer("state_size", default=128)
    kernel = config.integer("conv_kernel", default=4)
    chunk = config.integer("chunk_size", default=256)
    tensors = mamba2_tensors(
        "backbone.layers.{layer}.mixer",
        hidden,
        heads,
        head_dim,
        groups,
        state,
        kernel,
        conv_bias=config.boolean("use_conv_bias", default=True),
        bias=config.boolean("use_bias", default=False),
    )
    return Layer(
        rms_norm("backbone.layers.{layer}.norm", hidden) + tensors,
        (mamba2(heads, head_dim, groups, state, kernel, state_dtype_of(config), chunk),),
    )
