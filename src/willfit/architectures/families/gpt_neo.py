"""GPT-Neo: global and local attention in turn, learned positions, a plain MLP.

Source: transformers `models/gpt_neo/modeling_gpt_neo.py`. The published checkpoints also hold a causal mask
of all position pairs for each global layer.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import MAX_LAYERS, causal_decoder, repeated, shape_of
from willfit.architectures.blocks.feed_forward import plain_mlp
from willfit.architectures.blocks.tensors import buffer, embedding, layer_norm
from willfit.architectures.blocks.towers import learned_positions
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config
from willfit.errors import BadInput


def build(config: Config) -> Architecture:
    """The architecture of a GPT-Neo config."""
    hidden = config.integer("hidden_size")
    shape = shape_of(config.with_defaults(intermediate_size=4 * hidden))
    positions = config.integer("max_position_embeddings", default=2048)
    local_window = config.integer("window_size", default=256)

    def layer(kind: str) -> Layer:
        attention = shape.attention(window=local_window if kind == "local" else 0)
        block = "transformer.h.{layer}"
        mask = buffer(f"{block}.attn.attention.bias", (1, 1, positions, positions), "attention")
        return Layer(
            (
                *layer_norm(f"{block}.ln_1", hidden),
                *(mask if kind == "global" else ()),
                *attention_tensors(
                    f"{block}.attn.attention",
                    hidden,
                    attention,
                    out_bias=True,
                    names=("q_proj", "k_proj", "v_proj", "out_proj"),
                ),
                *layer_norm(f"{block}.ln_2", hidden),
                *plain_mlp(f"{block}.mlp", hidden, shape.width, bias=True, names=("c_fc", "c_proj")),
            ),
            (attention,),
            FeedForward(shape.width, gated=False),
        )

    return causal_decoder(
        config,
        family="gpt_neo",
        layers=repeated(layer, _kinds(config, shape.layers)),
        hidden=hidden,
        vocab=shape.vocab,
        tied_default=True,
        embeddings=(
            *embedding("transformer.wte", shape.vocab, hidden),
            *learned_positions("transformer.wpe", positions, hidden),
        ),
        final_norm=layer_norm("transformer.ln_f", hidden),
    )


def _kinds(config: Config, layers: int) -> list[str]:
    """`attention_layers`, or `attention_types` written out: [[["global", "local"], 12]]."""
    kinds = config.strings("attention_layers")
    for item in config.items("attention_types") if not kinds else ():
        match item:
            case [list(names), int(times)] if 0 <= times <= MAX_LAYERS and all(
                isinstance(n, str) for n in names
            ):
                kinds = kinds + names * times
            case _:
                raise BadInput(f"{config.where}: 'attention_types' holds {item!r}, expected [[kinds], times]")
    kinds = kinds or (["global", "local"] * layers)[:layers]
    if len(kinds) != layers:
        raise BadInput(f"{config.where}: attention kinds for {len(kinds)} layers, expected {layers}")
    return kinds
