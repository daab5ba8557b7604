"""What CUDA kernels take from the allocator beside their results, where their source says how much.

No tensor shows these bytes. README.md beside this file lists every formula with its source, and what is not known.
Read in torch 2.13.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from willfit.tracing.question import Card
from willfit.tracing.worker.cuda.workspaces import blas, efficient, flash, indexed, sums
from willfit.tracing.worker.cuda.workspaces.called import Called, Workspace, events

__all__ = ["Workspace", "events", "of"]

RULES: dict[str, Callable[[Called], list[Workspace]]] = {
    **dict.fromkeys(blas.PRODUCTS, blas.product),
    "_grouped_mm": blas.grouped,
    "_scaled_dot_product_flash_attention": flash.forward,
    "_scaled_dot_product_flash_attention_backward": flash.backward,
    "_scaled_dot_product_cudnn_attention_backward": flash.cudnn_backward,
    "_scaled_dot_product_efficient_attention": efficient.forward,
    "_scaled_dot_product_efficient_attention_backward": efficient.backward,
    "_safe_softmax": sums.safe_softmax,
    "native_layer_norm_backward": sums.layer_norm_backward,
    "_fused_rms_norm_backward": sums.rms_norm_backward,
    "_foreach_norm": sums.foreach_norm,
    "embedding_dense_backward": indexed.embedding_backward,
    **dict.fromkeys(("index_put", "index_put_", "_index_put_impl_"), indexed.index_put),
}


def of(op: str, args: Sequence[Any], named: Mapping[str, Any], result: Any, card: Card) -> list[Workspace]:
    """An operation's own workspaces, in the order in which they are taken.

    Parameters
    ----------
    op
        Its name without `aten::` and overload.
    args, named, result
        What it was called with, as a dispatch mode sees it, and what it returned; tensors on the traced device.
    card
        The device.

    Returns
    -------
    list of Workspace
        Without those of no bytes. Empty where none is known.
    """
    rule = RULES.get(op)
    return (
        [] if rule is None else [taken for taken in rule(Called(args, named, result, card)) if taken.nbytes]
    )
