"""Per-layer inputs and shared caches of Gemma 3n and Gemma 4.

A second token table holds a small embedding for every layer, which each layer mixes into its residual
stream. Source: transformers `models/gemma3n/modeling_gemma3n.py`, `models/gemma4/modeling_gemma4.py`.
"""

from __future__ import annotations

from willfit.architectures.blocks.tensors import buffer, column, embedding, linear, rms_norm
from willfit.architectures.mixers import Attention
from willfit.architectures.model import Tensor


def per_layer_embeddings(
    prefix: str, hidden: int, vocab: int, layers: int, layer_vocab: int, width: int
) -> tuple[Tensor, ...]:
    """The token table, and the tables and projection that make `width` inputs for each layer (none if 0)."""
    tensors = embedding(f"{prefix}.embed_tokens", vocab, hidden)
    if not width:
        return tensors
    return (
        *tensors,
        *embedding(f"{prefix}.embed_tokens_per_layer", layer_vocab, layers * width),
        *linear(
            f"{prefix}.per_layer_model_projection",
            hidden,
            layers * width,
            "embedding",
            split=column(layers * width),
        ),
        *rms_norm(f"{prefix}.per_layer_projection_norm", width),
    )


def per_layer_projections(block: str, hidden: int, width: int) -> tuple[Tensor, ...]:
    """What one layer does with its own inputs (nothing if `width` is 0)."""
    if not width:
        return ()
    return (
        *linear(f"{block}.per_layer_input_gate", hidden, width, "mlp"),
        *linear(f"{block}.per_layer_projection", width, hidden, "mlp"),
        *rms_norm(f"{block}.post_per_layer_input_norm", hidden),
    )


def unused_key_values(prefix: str, hidden: int, attention: Attention) -> tuple[Tensor, ...]:
    """Key and value projections that a layer with a shared cache has in the checkpoint and never uses."""
    if not attention.shares_cache:
        return ()
    tensors = buffer(
        f"{prefix}.k_proj.weight", (attention.kv_heads * attention.head_dim, hidden), "attention"
    )
    if not attention.value_is_key:
        shape = (attention.kv_heads * attention.value_dim, hidden)
        tensors += buffer(f"{prefix}.v_proj.weight", shape, "attention")
    return (*tensors, *buffer(f"{prefix}.k_norm.weight", (attention.head_dim,), "norm"))
