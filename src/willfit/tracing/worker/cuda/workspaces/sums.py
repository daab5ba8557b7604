"""Softmax that minds empty rows, gradients of norms' weights, and norms of lists of tensors."""

from __future__ import annotations

import math

import torch

from willfit.tracing.worker.cuda.workspaces.called import FLOAT, Called, Workspace

#: native/cuda/layer_norm_kernel.cu: `LaunchGammaBetaBackwardCUDAKernel` adds in parts if there are more rows than this
#: and few columns; columns and rows of a block, and the most blocks.
MANY_ROWS, COLUMNS, ROWS, BLOCKS = 64 * 1024, 32, 32, 64 * 1024 // 2
#: native/cuda/MultiTensorApply.cuh: `kChunkSize`.
CHUNK = 65536
#: native/cuda/ForeachReduceOp.cu: orders that are added in one go.
NORMS = (1.0, 2.0, math.inf)


def safe_softmax(called: Called) -> list[Workspace]:
    """`_safe_softmax` (native/transformers/attention.cpp): where entries are minus infinity, which rows are all so, and
    the zero that they become."""
    scores = called.tensor(0)
    rows = scores.numel() // max(scores.shape[called.args[1]], 1)
    return [
        Workspace(scores.numel(), "masked"),
        Workspace(rows, "masked_rows"),
        Workspace(called.result.element_size(), "zero"),
    ]


def layer_norm_backward(called: Called) -> list[Workspace]:
    """`native_layer_norm_backward`: gradients of weight and bias."""
    wanted = called.args[7]
    return _parts(called, called.args[5], wanted[1] + wanted[2])


def rms_norm_backward(called: Called) -> list[Workspace]:
    """`_fused_rms_norm_backward`: gradient of the weight."""
    return _parts(called, called.args[4], called.args[5][1])


def _parts(called: Called, weight: torch.Tensor | None, gradients: int) -> list[Workspace]:
    columns = math.prod(called.args[2])
    rows = called.tensor(1).numel() // max(columns, 1)
    if weight is None or rows <= MANY_ROWS or columns // COLUMNS >= called.card.multiprocessors // 2:
        return []
    blocks = min(BLOCKS // -(-columns // COLUMNS), -(-rows // ROWS))
    return [Workspace(blocks * columns * weight.element_size(), "partial sums")] * gradients


def foreach_norm(called: Called) -> list[Workspace]:
    """`_foreach_norm`: a sum for each chunk of each tensor, as if all had as many chunks as the largest."""
    tensors = called.args[0]
    order = float(called.get(1, "ord", 2))
    alike = len({(tensor.dtype, tensor.device) for tensor in tensors}) == 1
    if order not in NORMS or not alike or not tensors[0].dtype.is_floating_point:
        return []
    chunks = max(-(-tensor.numel() // CHUNK) for tensor in tensors)
    dtype = called.named.get("dtype") or called.get(2, "dtype", None) or tensors[0].dtype
    return [Workspace(max(FLOAT, dtype.itemsize) * len(tensors) * chunks, "output_per_tensor")]
