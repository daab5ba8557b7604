"""MiniMax-M3's text model: Mixtral's experts, and an indexer that chooses blocks of keys in most layers.

Source: transformers `models/minimax_m3_vl` and, for the checkpoint's names, its `conversion_mapping.py`. The
config names a multi-token-prediction module; the checkpoint has none.
"""

from __future__ import annotations

from willfit.architectures.blocks.attention import attention_tensors
from willfit.architectures.blocks.decoder import Shape, causal_decoder, repeated, shape_of
from willfit.architectures.blocks.experts import Experts, expert_tensors
from willfit.architectures.blocks.feed_forward import gated_mlp
from willfit.architectures.blocks.layer_types import sparse_layers
from willfit.architectures.blocks.tensors import linear, rms_norm
from willfit.architectures.mixers import IndexedAttention, Mixer
from willfit.architectures.model import Architecture, FeedForward, Layer
from willfit.checkpoints.config import Config
from willfit.errors import BadInput


def build(config: Config, prefix: str = "model", head_name: str = "lm_head") -> Architecture:
    """The architecture of the text model of MiniMax-M3.

    Parameters
    ----------
    prefix, head_name
        Names of the decoder and of its output projection in the checkpoint (longer inside a larger model).
    """
    shape = shape_of(config)
    hidden = shape.hidden
    qk_norm = config.boolean("use_qk_norm", default=True)
    experts = Experts(
        count=config.integer("num_local_experts"),
        top_k=config.integer("num_experts_per_tok"),
        width=shape.width,
        shared_width=config.integer("shared_intermediate_size", default=0),
    )
    indexed = _indexed_layers(config, shape)
    block = f"{prefix}.layers.{{layer}}"

    def layer(key: tuple[bool, tuple[int, int]]) -> Layer:
        routes, (index_heads, index_dim) = key
        attention = shape.attention()
        tensors = (
            *rms_norm(f"{block}.input_layernorm", hidden),
            *attention_tensors(f"{block}.self_attn", hidden, attention, qk_norm=qk_norm),
        )
        mixer: Mixer = attention
        if index_dim:
            mixer = IndexedAttention(
                shape.heads, shape.kv_heads, shape.head_dim, shape.head_dim, index_heads, index_dim
            )
            tensors += (
                *linear(f"{block}.self_attn.index_q_proj", hidden, index_heads * index_dim, "attention"),
                *linear(f"{block}.self_attn.index_k_proj", hidden, index_dim, "attention"),
                *rms_norm(f"{block}.self_attn.index_q_norm", index_dim),
                *rms_norm(f"{block}.self_attn.index_k_norm", index_dim),
            )
        tensors += rms_norm(f"{block}.post_attention_layernorm", hidden)
        if routes:
            tensors += expert_tensors(
                f"{block}.block_sparse_moe",
                hidden,
                experts,
                bias="e_score_correction_bias",
                names=("w1", "w3", "w2"),
            )
            return Layer(tensors, (mixer,), experts.feed_forward)
        width = config.integer("dense_intermediate_size")
        return Layer(tensors + gated_mlp(f"{block}.mlp", hidden, width), (mixer,), FeedForward(width))

    sparse = sparse_layers(config, shape.layers)
    return causal_decoder(
        config,
        family="minimax_m3",
        layers=repeated(layer, zip(sparse, indexed, strict=True)),
        hidden=hidden,
        vocab=shape.vocab,
        rope_dim=config.integer("rotary_dim", default=shape.head_dim),
        prefix=prefix,
        head_name=head_name,
    )


def _indexed_layers(config: Config, shape: Shape) -> list[tuple[int, int]]:
    """Heads and width of each layer's indexer, (0, 0) where a layer sees everything."""
    sparse = config.section("sparse_attention_config")
    if sparse is None:
        return [(0, 0)] * shape.layers
    flags = sparse.integers("sparse_attention_freq")
    if len(flags) < shape.layers:
        raise BadInput(
            f"{sparse.where}: 'sparse_attention_freq' has {len(flags)} entries for {shape.layers} layers"
        )
    widths = (sparse.integer("sparse_num_index_heads"), sparse.integer("sparse_index_dim"))
    return [widths if flag else (0, 0) for flag in flags[: shape.layers]]
