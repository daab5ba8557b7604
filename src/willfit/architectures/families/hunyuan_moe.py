"""Hunyuan-A13B: query/key norms and a shared expert; expert widths and counts may be lists, one per layer.

Source: transformers `models/hunyuan_v1_moe/modeling_hunyuan_v1_moe.py`. An absent or false
`use_mixed_mlp_moe` leaves the shared expert out in the checkpoint's own modeling file.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import causal_decoder, repeated, shape_of
from willfit.architectures.blocks.experts import Experts, expert_tensors
from willfit.architectures.blocks.tensors import rms_norm
from willfit.architectures.model import Architecture, Layer
from willfit.checkpoints.config import Config
from willfit.errors import BadInput


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of a Hunyuan mixture of experts.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    shape = shape_of(config)
    attention = shape.attention()
    bias = config.boolean("attention_bias", default=False)
    qk_norm = config.boolean("use_qk_norm", default=True)
    counts = _per_layer(config, "num_experts", shape.layers)
    top_ks = _per_layer(config, "moe_topk", shape.layers)
    widths = _per_layer(config, "moe_intermediate_size", shape.layers, default=shape.width)
    shares = config.boolean("use_mixed_mlp_moe", default=True)
    shared = _per_layer(config, "num_shared_expert", shape.layers, default=1)
    block = f"{prefix}.layers.{{layer}}"

    def layer(key: tuple[int, int, int, int]) -> Layer:
        count, top_k, width, shared_count = key
        experts = Experts(count, top_k, width, shared_count * width if shares else 0)
        tensors = (
            *rms_norm(f"{block}.input_layernorm", shape.hidden),
            *attention_tensors(
                f"{block}.self_attn",
                shape.hidden,
                attention,
                bias=bias,
                out_bias=bias,
                qk_norm=qk_norm,
                qk_norm_names=("query_layernorm", "key_layernorm"),
            ),
            *rms_norm(f"{block}.post_attention_layernorm", shape.hidden),
            *expert_tensors(f"{block}.mlp", shape.hidden, experts, gate="gate.wg", shared="shared_mlp"),
        )
        return Layer(tensors, (attention,), experts.feed_forward)

    return causal_decoder(
        config,
        family="hunyuan_moe",
        layers=repeated(layer, zip(counts, top_ks, widths, shared, strict=True)),
        hidden=shape.hidden,
        vocab=shape.vocab,
        rope_dim=shape.head_dim,
        prefix=prefix,
        head_name=head_name,
    )


def _per_layer(config: Config, name: str, layers: int, default: int | None = None) -> list[int]:
    """A field that is one number for all layers or a list with one for each."""
    if isinstance(config.raw(name), list):
        values = config.integers(name)
        if len(values) < layers:
            raise BadInput(f"{config.where}: {name!r} has {len(values)} entries for {layers} layers")
        return values[:layers]
    value = config.integer(name) if default is None else config.integer(name, default=default)
    return [value] * layers
