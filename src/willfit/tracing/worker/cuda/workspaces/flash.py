"""Flash attention 2 as torch carries it (native/transformers/cuda/flash_attn/flash_api.cpp), and cuDNN's attention."""

from __future__ import annotations

import torch

from willfit.tracing.worker.cuda.workspaces.called import FLOAT, Called, Workspace, copied, rounded

#: `mha_fwd`, `mha_bwd`: queries are rounded up to 128, widths to 32, and over 128 to 64.
ROWS, NARROW, NARROW_STEP, WIDE_STEP = 128, 128, 32, 64
#: `set_params_splitkv`: rows and keys of a block, by width, and the most splits.
SPLIT_ROWS, SPLIT_MOST = 64, 128
SPLIT_KEYS = ((64, 256), (128, 128), (256, 64))
#: `num_splits_heuristic`: blocks that nearly fill the card; how near to the best a smaller number may be; blocks of 128
#: threads, two of which share a multiprocessor.
NEARLY_FULL, NEAR_BEST, BLOCKS_EACH = 0.8, 0.85, 2


def width_of(head: int) -> int:
    """`head_size_rounded`."""
    return rounded(head, NARROW_STEP if head <= NARROW else WIDE_STEP)


def forward(called: Called) -> list[Workspace]:
    """`mha_fwd`: partial results where few queries meet many keys, so that keys are split among multiprocessors."""
    query, key = called.tensor(0), called.tensor(1)
    batch, heads, rows, head = query.shape
    if called.get(3, "dropout_p", 0.0) > 0.0:
        return []
    if rows == 1 and heads > key.shape[1]:  # the queries of a group become rows
        rows, heads = heads // key.shape[1], key.shape[1]
    keys = next(block for most, block in SPLIT_KEYS if head <= most)
    blocks = batch * heads * -(-rows // SPLIT_ROWS)
    parts = splits(blocks, called.card.multiprocessors * BLOCKS_EACH, -(-key.shape[2] // keys))
    if parts == 1:
        return []
    sums = FLOAT * parts * batch * heads * rows
    return [Workspace(sums, "softmax_lse_accum"), Workspace(sums * width_of(head), "out_accum")]


def splits(blocks: int, processors: int, key_blocks: int) -> int:
    """`num_splits_heuristic`: the fewest parts of which the card's rounds are nearly as full as they can be."""
    if blocks >= NEARLY_FULL * processors:
        return 1
    filled = {}
    for parts in range(1, min(SPLIT_MOST, processors, key_blocks) + 1):
        if parts == 1 or -(-key_blocks // parts) != -(-key_blocks // (parts - 1)):
            rounds = blocks * parts / processors
            filled[parts] = rounds / -(-blocks * parts // processors)
    best = max(filled.values(), default=0.0)
    return next((parts for parts, share in filled.items() if share >= NEAR_BEST * best), 1)


def backward(called: Called) -> list[Workspace]:
    """`mha_bwd`: sums of outputs times their gradients, the queries' gradient in float32, gradients of keys and values
    for each head before those of a group are added; copies where rows do not follow each other."""
    gradient, query, key, _, out = (called.tensor(place) for place in range(5))
    batch, heads, rows, head = query.shape
    sums = FLOAT * batch * heads * rounded(rows, ROWS)
    parts = 1
    if (
        torch.are_deterministic_algorithms_enabled()
        and not torch.is_deterministic_algorithms_warn_only_enabled()
    ):
        parts = -(-called.card.multiprocessors // (batch * heads))
    taken = [
        *copied(gradient.transpose(1, 2), "grad_out"),
        *copied(out.transpose(1, 2), "out"),
        Workspace(sums, "softmax_d"),
        Workspace(parts * sums * width_of(head), "dq_accum"),
    ]
    if key.shape[1] != heads:
        expanded = batch * key.shape[2] * heads * head * query.element_size()
        taken += [Workspace(expanded, "dk_expanded"), Workspace(expanded, "dv_expanded")]
    return taken


def cudnn_backward(called: Called) -> list[Workspace]:
    """What cuDNN's front end asks for (cudnn_frontend/node/scaled_dot_product_flash_attention.h:
    `get_fe_workspace_size_node`); the library's plan may ask for more. The gradient is copied where its layout is not
    the output's (native/cudnn/MHA.cpp: `run_cudnn_SDP_bprop`)."""
    gradient, query, _, _, out = (called.tensor(place) for place in range(5))
    batch, heads, rows, head = query.shape
    sums = FLOAT * batch * heads * rows
    taken = [Workspace(sums * head + sums, "dq_accum and softmax_sum")]
    if _steps(gradient) != _steps(out):
        taken.insert(0, Workspace(gradient.numel() * gradient.element_size(), "grad_out"))
    return taken


def _steps(tensor: torch.Tensor) -> list[int]:
    """Strides of the dimensions that have more than one entry (`same_strides`)."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]
