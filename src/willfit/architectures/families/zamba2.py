"""Zamba2: Mamba-2 layers, and attention blocks whose weights hybrid layers share in turn.

Source: transformers `models/zamba2`. With several shared blocks (`num_mem_blocks`) the n-th hybrid layer
uses block n modulo their number. Low-rank adapters make a block a little different in each of its layers;
the checkpoint stores them with the block.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import bounded_count, causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import fused_gate_up_mlp
from willfit.architectures.blocks.layer_types import kinds_of
from willfit.architectures.blocks.state_space import mamba2_tensors, state_dtype_of
from willfit.architectures.blocks.tensors import column, linear, rms_norm, row
from willfit.architectures.mixers import Attention
from willfit.architectures.mixers.recurrent import mamba2
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput


def build(config: Config) -> Architecture:
    """The architecture of a Zamba2 config."""
    shape = shape_of(config, width_default=4 * config.integer("hidden_size"))
    hidden = shape.hidden
    # Attention sees the residual stream joined with the embeddings.
    head_dim = 2 * hidden // shape.heads
    attention = shape.attention(head_dim=head_dim, value_dim=head_dim)
    heads = config.integer("n_mamba_heads", default=8)
    inner = config.integer("mamba_expand", default=2) * hidden
    sizes = (
        heads,
        inner // heads,
        config.integer("mamba_ngroups", default=1),
        config.integer("mamba_d_state", default=64),
        config.integer("mamba_d_conv", default=4),
    )
    recurrent = mamba2(*sizes, state_dtype_of(config), config.integer("chunk_size", default=256))
    bias = config.boolean("add_bias_linear", default=False)
    conv_bias = config.boolean("use_conv_bias", default=True)

    def layer(kind: str) -> Layer:
        block = "model.layers.{layer}"
        inside = f"{block}.mamba_decoder" if kind == "hybrid" else block
        tensors = (
            *mamba2_tensors(f"{inside}.mamba", hidden, *sizes, conv_bias=conv_bias, bias=bias),
            *rms_norm(f"{inside}.input_layernorm", hidden),
        )
        if kind != "hybrid":
            return Layer(tensors, (recurrent,))
        tensors = linear(f"{block}.linear", hidden, hidden, "attention") + tensors
        return Layer(tensors, (attention, recurrent), FeedForward(shape.width))

    kinds = kinds_of(config, shape.layers)
    if kinds is None:
        raise BadInput(f"{config.where}: the field 'layers_block_type' is missing", "it names hybrid layers")
    hybrids = [index for index, kind in enumerate(kinds) if kind == "hybrid"]
    blocks = bounded_count(config, "num_mem_blocks", default=1)
    shared: tuple[Tensor, ...] = ()
    for turn, index in enumerate(hybrids[:blocks]):
        users = range(turn, len(hybrids), blocks)
        prefix = f"model.layers.{index}.shared_transformer"
        shared += _shared_block(config, prefix, hidden, attention, shape.width, users)
    return causal_decoder(
        config,
        family="zamba2",
        layers=repeated(layer, kinds),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=head_dim if config.boolean("use_mem_rope", default=False) else 0,
        tied_default=True,
        norm_name="final_layernorm",
        shared=shared,
    )


def _shared_block(
    config: Config, prefix: str, hidden: int, attention: Attention, width: int, users: range
) -> tuple[Tensor, ...]:
    """A shared attention block with the adapters of the hybrid layers (by number) that use it."""
    wide, by_head = 2 * hidden, column(attention.heads)
    rank = config.integer("adapter_rank", default=128)
    attends, mlp = f"{prefix}.self_attn", f"{prefix}.feed_forward"
    *projections, _ = attention_tensors(attends, wide, attention)
    tensors = (
        *projections,
        *linear(f"{attends}.o_proj", attention.output_width, hidden, "attention", split=row(attention.heads)),
    )
    adapters: tuple[Tensor, ...] = ()
    for user in users:
        if config.boolean("use_shared_attention_adapter", default=False):
            for name in ("q", "k", "v"):
                adapter = f"{attends}.linear_{name}_adapter_list.{user}"
                adapters += linear(f"{adapter}.0", wide, rank, "attention")
                adapters += linear(f"{adapter}.1", rank, wide, "attention", split=by_head)
        adapter = f"{mlp}.gate_up_proj_adapter_list.{user}"
        adapters += linear(f"{adapter}.0", hidden, rank, "mlp")
        adapters += linear(f"{adapter}.1", rank, 2 * width, "mlp", split=column(width))
    return (
        *tensors,
        *fused_gate_up_mlp(mlp, hidden, width, bias=config.boolean("add_bias_linear", default=False)),
        *adapters,
        *rms_norm(f"{prefix}.input_layernorm", wide),
        *rms_norm(f"{prefix}.pre_ff_layernorm", hidden),
    )
