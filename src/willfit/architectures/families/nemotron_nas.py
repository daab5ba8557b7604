"""Llama-Nemotron (DeciLM): a Llama whose layers were pruned one by one by architecture search.

Source: `modeling_decilm.py` as published with nvidia/Llama-3_3-Nemotron-Super-49B-v1. `block_configs` says
for each layer how many query heads share a KV head, how wide the MLP is, and which part is missing or
replaced by one linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.tensors import linear, rms_norm
from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput
from willfit.quantities import round_up

#: The MLP's width is rounded up to a multiple of this.
_WIDTH_MULTIPLE = 256


@dataclass(frozen=True, slots=True)
class Block:
    """What one layer has: attention of its own shape or a linear layer or nothing, and an MLP likewise."""

    attention: Attention | None
    linear_attention: bool
    width: int
    linear_mlp: bool


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Llama-Nemotron config."""
    shape = shape_of(
        config.with_defaults(num_key_value_heads=config.raw("num_attention_heads")), width_default=0
    )
    hidden = shape.hidden
    bias = config.boolean("attention_bias", default=False)
    blocks = config.items("block_configs")
    if len(blocks) != shape.layers:
        raise BadInput(f"{config.where}: 'block_configs' has {len(blocks)} entries for {shape.layers} layers")

    def block_of(index: int) -> Block:
        section = Config({"block": blocks[index]}, config.where).section("block")
        attention = section.section("attention") if section else None
        mlp = section.section("ffn") if section else None
        if attention is None or mlp is None:
            raise BadInput(f"{config.where}: block_configs[{index}] lacks 'attention' or 'ffn'")
        mixer = None
        if not (_flag(attention, "no_op") or _flag(attention, "replace_with_linear")):
            window = attention.integer("window_length", default=0)
            group = attention.integer("n_heads_in_group")
            if not 0 < group <= shape.heads:
                raise BadInput(f"{config.where}: block_configs[{index}] has 'n_heads_in_group' {group}")
            mixer = replace(shape.attention(window=window), kv_heads=shape.heads // group)
        width = 0
        if not (_flag(mlp, "no_op") or _flag(mlp, "replace_with_linear")):
            width = round_up(int(2 * mlp.number("ffn_mult") * hidden / 3), _WIDTH_MULTIPLE)
        return Block(mixer, _flag(attention, "replace_with_linear"), width, _flag(mlp, "replace_with_linear"))

    def layer(block: Block) -> Layer:
        name = f"{prefix}.layers.{{layer}}"
        before_attention = rms_norm(f"{name}.input_layernorm", hidden)
        before_mlp = rms_norm(f"{name}.post_attention_layernorm", hidden)
        tensors: tuple[Tensor, ...] = ()
        if block.attention:
            tensors += before_attention + attention_tensors(
                f"{name}.self_attn", hidden, block.attention, bias=bias, out_bias=bias
            )
        elif block.linear_attention:
            tensors += before_attention + linear(f"{name}.self_attn.linear_attn", hidden, hidden, "attention")
        if block.width:
            tensors += before_mlp + gated_mlp(f"{name}.mlp", hidden, block.width)
        elif block.linear_mlp:
            tensors += before_mlp + linear(f"{name}.mlp.linear_mlp", hidden, hidden, "mlp")
        return Layer(
            tensors,
            (block.attention,) if block.attention else (),
            FeedForward(block.width) if block.width else None,
        )

    return causal_decoder(
        config,
        family="nemotron_nas",
        layers=repeated(layer, (block_of(index) for index in range(shape.layers))),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
    )


def _flag(section: Config, name: str) -> bool:
    return section.boolean(name, default=False)
