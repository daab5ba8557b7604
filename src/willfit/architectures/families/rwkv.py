"""RWKV-4 and RWKV-5: a time mixer with a recurrent state, and a channel mixer that looks one token back.

Source: transformers `models/rwkv`; for RWKV-5.2 the code that is published with its checkpoints. Both
mixers remember the last token's input; RWKV-4 also keeps a numerator, a denominator and a maximum for each
channel, RWKV-5 a (head_size, head_size) matrix for each head.
"""

from __future__ import annotations

from willfit.architectures.blocks.decoder import causal_decoder, layer_count, repeated
from willfit.architectures.blocks.tensors import column, layer_norm, linear, parameter, row
from willfit.architectures.mixers import Recurrent
from willfit.architectures.model import Architecture, FeedForward, Layer, Tensor
from willfit.checkpoints.config import Config


def build(config: Config) -> Architecture:
    """The architecture of an RWKV-4 or RWKV-5 config."""
    fifth = config.text("model_type", default="rwkv") == "rwkv5"
    hidden = config.integer("hidden_size")
    inner = config.integer("attention_hidden_size", default=hidden)
    heads = inner // config.integer("head_size", default=64) if fifth else inner
    # RWKV-5 widens its channel mixer by 3.5, rounded down to a multiple of 32; RWKV-4 by 4.
    width = config.integer("intermediate_size", default=hidden * 7 // 64 * 32 if fifth else 4 * hidden)
    block = "rwkv.blocks.{layer}"
    state = inner * (inner // heads) if fifth else 3 * inner
    mixer = Recurrent(
        "rwkv5" if fifth else "rwkv",
        conv_channels=2 * hidden,
        conv_kernel=2,
        recurrent=state,
        heads=heads,
        projected_width=(4 if fifth else 3) * inner,
        output_width=inner,
    )
    time_mixer = (_rwkv5_tensors if fifth else _rwkv4_tensors)(f"{block}.attention", hidden, inner, heads)
    channel_mixer = (
        *parameter(f"{block}.feed_forward.time_mix_key", (1, 1, hidden), "mlp"),
        *parameter(f"{block}.feed_forward.time_mix_receptance", (1, 1, hidden), "mlp"),
        *linear(f"{block}.feed_forward.key", hidden, width, "mlp", split=column(width)),
        *linear(f"{block}.feed_forward.receptance", hidden, hidden, "mlp"),
        *linear(f"{block}.feed_forward.value", width, hidden, "mlp", split=row(width)),
    )

    def layer(first: bool) -> Layer:
        norms = (
            *(layer_norm(f"{block}.pre_ln", hidden) if first else ()),
            *layer_norm(f"{block}.ln1", hidden),
            *layer_norm(f"{block}.ln2", hidden),
        )
        return Layer(norms + time_mixer + channel_mixer, (mixer,), FeedForward(width, gated=False))

    return causal_decoder(
        config,
        family="rwkv",
        layers=repeated(layer, (index == 0 for index in range(layer_count(config)))),
        hidden=hidden,
        vocab=config.integer("vocab_size"),
        prefix="rwkv",
        embed_name="embeddings",
        head_name="head",
        final_norm=layer_norm("rwkv.ln_out", hidden),
    )


def _rwkv4_tensors(prefix: str, hidden: int, inner: int, heads: int) -> tuple[Tensor, ...]:
    by_channel = column(heads)
    return (
        *parameter(f"{prefix}.time_decay", (inner,), "mixer", by_channel),
        *parameter(f"{prefix}.time_first", (inner,), "mixer", by_channel),
        *_shifts(prefix, hidden, ("key", "value", "receptance")),
        *_projections(prefix, hidden, inner, heads, ("key", "value", "receptance")),
    )


def _rwkv5_tensors(prefix: str, hidden: int, inner: int, heads: int) -> tuple[Tensor, ...]:
    by_head = column(heads)
    return (
        *parameter(f"{prefix}.time_decay", (heads, inner // heads), "mixer", by_head),
        *parameter(f"{prefix}.time_faaaa", (heads, inner // heads), "mixer", by_head),
        *_shifts(prefix, hidden, ("gate", "key", "value", "receptance")),
        *_projections(prefix, hidden, inner, heads, ("key", "value", "receptance", "gate")),
        Tensor(f"{prefix}.ln_x.weight", (inner,), "norm", "norm", by_head),
        Tensor(f"{prefix}.ln_x.bias", (inner,), "norm", "norm", by_head),
    )


def _shifts(prefix: str, hidden: int, names: tuple[str, ...]) -> tuple[Tensor, ...]:
    return tuple(Tensor(f"{prefix}.time_mix_{name}", (1, 1, hidden), "mixer", "other") for name in names)


def _projections(
    prefix: str, hidden: int, inner: int, heads: int, names: tuple[str, ...]
) -> tuple[Tensor, ...]:
    inward = tuple(
        tensor
        for name in names
        for tensor in linear(f"{prefix}.{name}", hidden, inner, "mixer", split=column(heads))
    )
    return inward + linear(f"{prefix}.output", inner, hidden, "mixer", split=row(heads))
