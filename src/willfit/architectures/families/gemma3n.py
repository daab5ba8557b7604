"""Gemma 3n's language model: AltUp streams, LAuReL residuals, per-layer inputs, a shared KV cache.

Source: transformers `models/gemma3n/modeling_gemma3n.py`. The last `num_kv_shared_layers` layers read the
cache of an earlier layer. Their key and value projections are in the checkpoint all the same, unused.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import (
    bounded_count,
    causal_decoder,
    layer_count,
    repeated,
    shape_of,
)
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.layer_types import windows_of
from willfit.architectures.blocks.per_layer_inputs import (
    per_layer_embeddings,
    per_layer_projections,
    unused_key_values,
)
from willfit.architectures.blocks.tensors import column, linear, parameter, rms_norm, row
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config
from willfit.errors import BadInput

#: The class defaults of Gemma3nTextConfig.
_DEFAULTS = {
    "vocab_size": 262400, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256,
    "sliding_window": 512, "vocab_size_per_layer_input": 262144, "hidden_size_per_layer_input": 256,
    "num_kv_shared_layers": 15, "altup_num_inputs": 4, "laurel_rank": 64, "max_position_embeddings": 32768,
}  # fmt: skip


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Gemma 3n text config."""
    config = config.with_defaults(**_DEFAULTS)
    layers = layer_count(config)
    widths = _widths(config, layers)
    shape = shape_of(Config({**config.fields, "intermediate_size": max(widths)}, config.where))
    hidden = shape.hidden
    streams = bounded_count(config, "altup_num_inputs")
    rank = config.integer("laurel_rank")
    per_layer = config.integer("hidden_size_per_layer_input")
    first_shared = layers - min(layers, config.integer("num_kv_shared_layers"))

    def layer(key: tuple[int, int, bool]) -> Layer:
        window, width, shares = key
        attention = shape.attention(window=window, shares_cache=shares)
        block = f"{prefix}.layers.{{layer}}"
        return Layer(
            (
                *rms_norm(f"{block}.input_layernorm", hidden),
                *attention_tensors(f"{block}.self_attn", hidden, attention, qk_norm=True),
                *unused_key_values(f"{block}.self_attn", hidden, attention),
                *rms_norm(f"{block}.post_attention_layernorm", hidden),
                *rms_norm(f"{block}.pre_feedforward_layernorm", hidden),
                *gated_mlp(f"{block}.mlp", hidden, width),
                *rms_norm(f"{block}.post_feedforward_layernorm", hidden),
                *parameter(f"{block}.altup.correct_output_scale", (hidden,), "mlp"),
                *linear(f"{block}.altup.correction_coefs", streams, streams, "mlp"),
                *linear(f"{block}.altup.prediction_coefs", streams, streams**2, "mlp"),
                *linear(f"{block}.altup.modality_router", hidden, streams, "mlp"),
                *rms_norm(f"{block}.altup.router_norm", hidden),
                *linear(f"{block}.laurel.linear_left", hidden, rank, "mlp", split=column(rank)),
                *linear(f"{block}.laurel.linear_right", rank, hidden, "mlp", split=row(rank)),
                *rms_norm(f"{block}.laurel.post_laurel_norm", hidden),
                *per_layer_projections(block, hidden, per_layer),
            ),
            (attention,),
            FeedForward(width),
        )

    windows = windows_of(config, layers, default_pattern=5)
    shared_cache = [index >= first_shared for index in range(layers)]
    return causal_decoder(
        config,
        family="gemma3n",
        layers=repeated(layer, zip(windows, widths, shared_cache, strict=True)),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        tied_default=True,
        prefix=prefix,
        head_name=head_name,
        embeddings=per_layer_embeddings(
            prefix, hidden, shape.vocab, layers, config.integer("vocab_size_per_layer_input"), per_layer
        ),
        shared=tuple(
            tensor
            for stream in range(streams - 1)
            for name in ("altup_projections", "altup_unembed_projections")
            for tensor in linear(f"{prefix}.{name}.{stream}", hidden, hidden, "mlp", split=column(hidden))
        ),
    )


def _widths(config: Config, layers: int) -> list[int]:
    """`intermediate_size` of each layer, which the config may give once for all."""
    if not isinstance(config.raw("intermediate_size"), list):
        return [config.integer("intermediate_size")] * layers
    widths = config.integers("intermediate_size")
    if len(widths) != layers:
        raise BadInput(f"{config.where}: 'intermediate_size' has {len(widths)} entries for {layers} layers")
    return widths
