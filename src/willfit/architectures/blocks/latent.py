"""Tensors of multi-head latent attention and of its sparse indexer."""

from __future__ import annotations

from willfit.architectures.blocks.tensors import column, layer_norm, linear, rms_norm, row
from willfit.architectures.mixers import LatentAttention
from willfit.architectures.model import Tensor
from willfit.checkpoints.config import Config
from willfit.errors import BadInput


def latent_attention_of(
    config: Config, *, index_heads: int = 0, index_dim: int = 0, index_pool: int = 1
) -> LatentAttention:
    """Read the widths of multi-head latent attention (`kv_lora_rank`, `qk_rope_head_dim`, ...).

    `q_lora_rank` absent or null means that queries are projected directly (DeepSeek-V2-Lite).

    Raises
    ------
    BadInput
        If a field is missing or impossible; the message names it.
    """
    heads = config.integer("num_attention_heads")
    if heads == 0:
        raise BadInput(f"{config.where}: num_attention_heads must not be 0")
    return LatentAttention(
        heads=heads,
        kv_rank=config.integer("kv_lora_rank"),
        rope_dim=config.integer("qk_rope_head_dim"),
        nope_dim=config.integer("qk_nope_head_dim"),
        value_dim=config.integer("v_head_dim"),
        query_rank=config.integer("q_lora_rank", default=0),
        index_heads=index_heads,
        index_dim=index_dim,
        index_pool=index_pool,
    )


def latent_attention_tensors(
    prefix: str, hidden: int, attention: LatentAttention, *, bias: bool = False
) -> tuple[Tensor, ...]:
    """Down- and up-projections of queries and of the latent, and the output projection.

    The down-projections make what all heads share, so every tensor-parallel rank holds them whole, as it
    holds the indexer; the up-projections are divided by heads.

    Parameters
    ----------
    prefix
        Name of the attention module, without a trailing dot.
    hidden
        Width of the layer's input and output.
    attention
        Head counts and widths; with `index_dim` the indexer's tensors follow.
    bias
        Biases of the down-projections and of the output projection.
    """
    heads = attention.heads
    query_width = heads * (attention.nope_dim + attention.rope_dim)
    up_width = heads * (attention.nope_dim + attention.value_dim)
    if attention.query_rank:
        queries = (
            *linear(f"{prefix}.q_a_proj", hidden, attention.query_rank, "attention", bias=bias),
            *rms_norm(f"{prefix}.q_a_layernorm", attention.query_rank),
            *linear(
                f"{prefix}.q_b_proj", attention.query_rank, query_width, "attention", split=column(heads)
            ),
        )
    else:
        queries = linear(f"{prefix}.q_proj", hidden, query_width, "attention", split=column(heads))
    return (
        *queries,
        *linear(f"{prefix}.kv_a_proj_with_mqa", hidden, attention.latent_per_token, "attention", bias=bias),
        *rms_norm(f"{prefix}.kv_a_layernorm", attention.kv_rank),
        *linear(f"{prefix}.kv_b_proj", attention.kv_rank, up_width, "attention", split=column(heads)),
        *linear(f"{prefix}.o_proj", attention.output_width, hidden, "attention", bias=bias, split=row(heads)),
        *(_indexer_tensors(f"{prefix}.indexer", hidden, attention) if attention.index_dim else ()),
    )


def _indexer_tensors(prefix: str, hidden: int, attention: LatentAttention) -> tuple[Tensor, ...]:
    index_width = attention.index_heads * attention.index_dim
    return (
        *linear(f"{prefix}.wq_b", attention.query_rank or hidden, index_width, "attention"),
        *linear(f"{prefix}.wk", hidden, attention.index_dim, "attention"),
        *layer_norm(f"{prefix}.k_norm", attention.index_dim),
        *linear(f"{prefix}.weights_proj", hidden, attention.index_heads, "attention"),
    )
