"""Gradients of rows that were looked up: indices are sorted, and rows of one index added."""

from __future__ import annotations

import math

import torch

from willfit.tracing.worker.cuda.workspaces.called import FLOAT, LONG, Called, Workspace, copied, rounded

#: native/cuda/Embedding.cu: `embedding_dense_backward_cuda` sorts from this many indices on.
SORTED_FROM = 3072
#: native/cuda/EmbeddingBackwardKernel.cu: rows that a thread adds (`NROWS_PER_THREAD`); threads of a warp and, at most,
#: of a block; how few blocks for each multiprocessor call for atomic additions (`MAX_ATOMIC_ACCUM_BLOCKS_PER_SM`), and
#: how many more they would give.
ROWS_EACH, WARP, BLOCK, FEW_BLOCKS, MORE_BLOCKS = 10, 32, 1024, 4, 4


def embedding_backward(called: Called) -> list[Workspace]:
    """`embedding_dense_backward`, but for what CUB's sort takes by itself (about two copies of indices and places)."""
    gradient, indices = called.tensor(0), called.tensor(1)
    rows, count, width = called.args[2], indices.numel(), gradient.shape[-1]
    if count <= SORTED_FROM and not called.get(4, "scale_grad_by_freq", False):
        return copied(gradient, "grad")
    index = indices.element_size()
    segments = min(count, rows)
    parts = count // ROWS_EACH + segments
    taken = [
        *copied(gradient, "grad"),
        Workspace(index * count, "sorted_indices"),
        Workspace(index * count, "orig_indices"),
        Workspace(index * count, "range", brief=True),
        Workspace(index * count, "segment_offsets"),
        Workspace(LONG, "num_of_segments"),
        Workspace(index * segments, "partials_per_segment"),
        Workspace(index * segments, "partials_per_segment_offset"),
        Workspace(LONG, "num_of_partial_segments"),
        Workspace(index * parts, "partial_segment_offset"),
    ]
    warped = rounded(width, WARP)
    blocks = -(-segments * warped // min(warped, BLOCK))
    atomic = (
        blocks < called.card.multiprocessors * FEW_BLOCKS
        and parts > MORE_BLOCKS * blocks
        and not torch.are_deterministic_algorithms_enabled()
    )
    if not atomic:
        return [*taken, Workspace(_wide(gradient) * parts * width, "grad_weight_per_segment")]
    taken.append(Workspace(index * parts, "partial_to_segment_idx"))
    if gradient.element_size() < FLOAT:
        taken.append(Workspace(FLOAT * rows * width, "grad_weight_acc"))
    return taken


def index_put(called: Called) -> list[Workspace]:
    """`index_put` that adds: the places of rows, and sorted with where each came from (native/cuda/Indexing.cu:
    `index_put_with_sort_kernel`), but for what CUB's sort takes by itself."""
    if not (called.get(3, "accumulate", False) or torch.are_deterministic_algorithms_enabled()):
        return []
    given = [index for index in called.args[1] if index is not None]
    if not given or any(index.dtype in (torch.bool, torch.uint8) for index in given):
        return []  # how many are set depends on the values
    count = math.prod(torch.broadcast_shapes(*(index.shape for index in given)))
    names = ("linear_index", "sorted_indices", "orig_indices", "range")
    return [Workspace(LONG * count, name) for name in names]


def _wide(tensor: torch.Tensor) -> int:
    """Bytes of the type that sums of a tensor's are computed in (`opmath_type`)."""
    return max(FLOAT, tensor.element_size())
