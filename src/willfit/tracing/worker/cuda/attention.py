"""Scaled dot-product attention as CUDA would choose and run it, on fake tensors.

Without a card torch silently takes the plain products (`math`) for `cuda` tensors. What surrounds the kernels follows
`at::native::scaled_dot_product_attention` (ATen/native/transformers/attention.cpp, 2.13.0): heads are padded for flash
attention, masks of truths become numbers, and are padded and expanded for the efficient kernel. Which kernel it is says
`choice.py`.
"""

from __future__ import annotations

import math
import os

import torch
from torch import Tensor
from torch.nn import functional

from willfit.tracing.question import Card
from willfit.tracing.worker.cuda import fakes
from willfit.tracing.worker.cuda.choice import (
    CUDNN,
    CUDNN_FIRST,
    EFFICIENT,
    FLASH,
    PREFER_CUDNN,
    Call,
    Capability,
    choose,
)

aten = torch.ops.aten
#: `pad_last_dim` before the flash kernel, in elements.
FLASH_ALIGNMENT = 8
#: `preprocess_mask`: strides of a mask, in elements.
MASK_ALIGNMENT = 8
#: Environment variable that leaves cuDNN last (`check_prefer_cudnn_attention`).
CUDNN_LAST = "TORCH_CUDNN_SDPA_DEPRIORITIZED"

#: How often each kernel was chosen, so that a trace can say which it saw.
chosen: dict[str, int] = {}
_kept: list[object] = []
_capability: Capability = (8, 0)


def install(card: Card) -> None:
    """Register the choice for `cuda` tensors, above autograd as the composite stands."""
    _prepare(card)
    library = torch.library.Library("aten", "IMPL")
    for key in ("AutogradCUDA", "CUDA"):
        library.impl("scaled_dot_product_attention", attend, key)
    _kept.append(library)


def replace(card: Card) -> None:
    """Put the choice in the place of torch's function, for fake CPU tensors."""
    _prepare(card)

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if torch.is_autocast_enabled("cpu"):  # which casts below torch's own function
            wanted = torch.get_autocast_dtype("cpu")
            query, key, value = (tensor.to(wanted) for tensor in (query, key, value))
            if attn_mask is not None and attn_mask.is_floating_point():
                attn_mask = attn_mask.to(wanted)
        return attend(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)

    functional.scaled_dot_product_attention = attention


def _prepare(card: Card) -> None:
    """Whose card it is, and torch's order of kernels on it (`priority_order`)."""
    global _capability
    _capability = card.capability
    fakes.install()
    if card.capability[0] in PREFER_CUDNN and os.environ.get(CUDNN_LAST) != "1":
        torch._C._set_sdp_priority_order([backend.value for backend in CUDNN_FIRST])


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`aten::scaled_dot_product_attention`."""
    call = Call(query, key, value, mask, dropout, causal, enable_gqa)
    kernel = choose(call, _capability)
    chosen[kernel] = chosen.get(kernel, 0) + 1
    mask = _numbers(mask, query)
    out: Tensor
    if kernel == FLASH:
        width = query.shape[-1]
        scale = width**-0.5 if scale is None else scale
        padded = [_padded(tensor, FLASH_ALIGNMENT) for tensor in (query, key, value)]
        out = aten._scaled_dot_product_flash_attention(*padded, dropout, causal, False, scale=scale)[0]
        return out if out.shape[-1] == width else out[..., :width]
    if kernel == EFFICIENT:
        if mask is not None:
            mask = _aligned(mask).expand(*query.shape[:-1], key.shape[-2])
        out = aten._scaled_dot_product_efficient_attention(
            query, key, value, mask, call.needs_grad, dropout, causal, scale=scale
        )[0]
        return out
    if kernel == CUDNN:
        out = aten._scaled_dot_product_cudnn_attention(
            query, key, value, mask, call.needs_grad, dropout, causal, False, scale=scale
        )[0]
        return out
    return plain(query, key, value, mask, dropout, causal, scale, enable_gqa)


def plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Tensor:
    """`_scaled_dot_product_attention_math`, whose mask is added in place, as it is not for fake tensors.

    Half-precision inputs are computed in float32 unless
    `torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp` says otherwise. Every local of the C++ function has a name
    here, as each lives until it returns.
    """
    if mask is not None and causal:
        raise RuntimeError(
            "_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True"
        )
    exact = (
        query.dtype
        in (
            torch.bfloat16,
            torch.float16,
        )
        and not torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    )
    wanted = query.dtype
    wide_query, wide_key, wide_value = (tensor.float() if exact else tensor for tensor in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    root = math.sqrt(abs(scale))
    scaled = wide_query * (root if scale >= 0 else -root)
    if causal:
        lower = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
        mask = _numbers(lower, scaled)
        del lower
    keys, values = wide_key, wide_value
    if enable_gqa and len({tensor.shape[-3] for tensor in (query, key, value)}) > 1:
        keys = wide_key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        values = wide_value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    scores = torch.matmul(scaled, keys.transpose(-2, -1) * root)
    if mask is not None:
        scores.add_(mask)
    scores = aten._safe_softmax(scores, -1)
    if dropout > 0.0:
        scores = functional.dropout(scores, dropout, True)
    # The second of the two results is made first, and lives until both are.
    weights = scores.to(wanted)
    out = torch.matmul(scores, values).to(wanted)
    del weights, wide_query, wide_key, wide_value
    return out


def _numbers(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """`convert_boolean_attn_mask`."""
    if mask is None or mask.dtype is not torch.bool:
        return mask
    return torch.where(mask, 0.0, torch.scalar_tensor(-math.inf, dtype=like.dtype, device=like.device))


def _padded(tensor: Tensor, multiple: int) -> Tensor:
    rest = -tensor.shape[-1] % multiple
    return functional.pad(tensor, (0, rest)) if rest else tensor


def _aligned(mask: Tensor) -> Tensor:
    """`preprocess_mask`."""
    if mask.stride(-1) == 1 and all(stride % MASK_ALIGNMENT == 0 for stride in mask.stride()[:-1]):
        return mask
    rest = MASK_ALIGNMENT - mask.shape[-1] % MASK_ALIGNMENT
    return functional.pad(mask, (0, rest))[..., : mask.shape[-1]]
