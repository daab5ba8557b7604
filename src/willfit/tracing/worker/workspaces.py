"""What a CUDA kernel takes from the allocator and gives back before it returns, in bytes, where its source says it.

These bytes are beside the traced ones: no tensor shows them.
"""

from __future__ import annotations

import torch

#: flash_attn/flash_api.cpp: `mha_bwd` rounds lengths to 128, heads' widths to 32.
FLASH_ROWS, FLASH_COLUMNS = 128, 32
FLOAT = 4


def of(op: str, args: tuple[object, ...], result: object) -> int:
    """Bytes of an operation's own workspace; 0 for those that are not known to have one."""
    if op == "_safe_softmax":
        return safe_softmax(args[0])
    if op == "_scaled_dot_product_flash_attention_backward":
        return flash_backward(*args[1:4])
    return 0


def safe_softmax(scores: torch.Tensor) -> int:
    """`_safe_softmax` (native/transformers/attention.cpp): the softmax before rows without entries are cleared,
    where entries are absent, and which rows have none."""
    rows = scores.numel() // scores.shape[-1]
    return scores.numel() * (scores.element_size() + 1) + rows + scores.element_size()


def flash_backward(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> int:
    """`mha_bwd`: dot products of outputs and their gradients, the query's gradient in float32, and gradients of keys
    and values for each head before those of a group are added."""
    batch, heads, rows, width = query.shape
    rounded = -(-rows // FLASH_ROWS) * FLASH_ROWS
    columns = -(-width // FLASH_COLUMNS) * FLASH_COLUMNS
    taken = FLOAT * batch * heads * rounded * (1 + columns)
    if key.shape[1] != heads:
        taken += 2 * batch * key.shape[2] * heads * width * query.element_size()
    return taken
