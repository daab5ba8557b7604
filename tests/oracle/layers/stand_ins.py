"""What stands in for a GPU while layers run on the meta device."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

#: Widest head of flash kernels.
FLASH_HEAD = 256


def _dropout(value, p=0.5, training=True, inplace=False):
    # On a GPU the mask is one byte an element.
    return torch.native_dropout(value, p, True)[0] if training and p else value


def _attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """SDPA's choice on CUDA: flash, then memory-efficient, then written out."""
    narrow = query.dtype in (torch.bfloat16, torch.float16)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(
            attn_mask.logical_not(), -1e30
        )
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    alike = query.shape[-1] == value.shape[-1]
    if attn_mask is None and narrow and alike and query.shape[-1] <= FLASH_HEAD:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        return flash(query, key, value, dropout_p, is_causal, scale=scale)[0]
    if query.shape[-3] == key.shape[-3]:
        if attn_mask is not None:
            shape = query.shape[0], query.shape[-3], query.shape[-2], key.shape[-2]
            attn_mask = attn_mask.expand(*shape)
        efficient = torch.ops.aten._scaled_dot_product_efficient_attention
        return efficient(query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale)[0]
    written = torch.ops.aten._scaled_dot_product_attention_math
    return written(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)[0]


def install() -> object:
    """Put the stand-ins in place; what is returned must be kept alive."""
    from transformers import masking_utils

    library = torch._C._dispatch_library("IMPL", "aten", "Meta", __file__, 1)
    for name in ("silu_backward", "mish_backward"):
        library.impl(name, "Meta", lambda gradient, value: torch.empty_like(value))
    functional.dropout = _dropout
    torch.dropout = lambda value, p, train: _dropout(value, p, train)
    functional.scaled_dot_product_attention = _attention
    # A tensor without values cannot say whether sequences are packed.
    masking_utils.find_packed_sequence_indices = lambda *given, **named: None
    for name, answer in (("item", 1), ("__bool__", True)):
        original = getattr(torch.Tensor, name)
        setattr(torch.Tensor, name, _answering(original, answer))
    original = torch.Tensor.tolist
    torch.Tensor.tolist = lambda tensor: (
        [1] * tensor.numel() if tensor.device.type == "meta" else original(tensor)
    )
    return library


def _answering(original, answer):
    return lambda tensor: answer if tensor.device.type == "meta" else original(tensor)
