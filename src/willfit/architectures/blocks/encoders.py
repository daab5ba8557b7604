"""The frame that encoder-only models share."""

from __future__ import annotations

from typing import Any

from willfit.architectures.blocks.decoder import dtype_of
from willfit.architectures.model import Architecture, Layer, Tensor
from willfit.checkpoints.config import Config


def encoder_only(
    config: Config,
    *,
    family: str,
    embeddings: tuple[Tensor, ...],
    layers: tuple[Layer, ...],
    head: tuple[Tensor, ...],
    hidden: int,
    tied: bool = False,
    **more: Any,
) -> Architecture:
    """Put an encoder together: bidirectional, without a cache."""
    fields: dict[str, Any] = {
        "model_type": config.text("model_type", default="unknown"),
        "family": family,
        "hidden_size": hidden,
        "vocab_size": config.integer("vocab_size"),
        "max_positions": config.integer("max_position_embeddings", default=0),
        "dtype": dtype_of(config, default="fp32"),
        "embeddings": embeddings,
        "layers": layers,
        "head": head,
        "tied": tied,
        "encoder_only": True,
        "causal": False,
    }
    return Architecture(**(fields | more))
