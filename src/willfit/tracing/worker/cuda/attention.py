"""Scaled dot-product attention as CUDA would choose and run it, on fake tensors.

Without a card PyTorch silently takes the plain products (`math`) for `cuda` tensors. The choice here follows
`sdp::select_sdp_backend` and what surrounds the kernels follows `at::native::scaled_dot_product_attention`
(ATen/native/transformers, 2.13.0). cuDNN's kernel, which newer cards may prefer, keeps the same tensors as flash
attention.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from willfit.tracing.question import Card

aten = torch.ops.aten
#: `check_head_dim_size_flash`.
FLASH_HEAD_DIM = 256
#: `pad_last_dim` before the flash kernel, in elements.
FLASH_ALIGNMENT = 8
#: `preprocess_mask`: strides of a mask, in elements.
MASK_ALIGNMENT = 8
#: `minimum_gemm_alignment` with tensor cores, in bytes.
EFFICIENT_ALIGNMENT = 16

#: How often each kernel was chosen, so that a trace can say which it saw.
chosen: dict[str, int] = {}
_kept: list[object] = []


def install(card: Card) -> None:
    """Register the choice for `cuda` tensors, above autograd as the composite stands."""
    library = torch.library.Library("aten", "IMPL")
    for key in ("AutogradCUDA", "CUDA"):
        library.impl("scaled_dot_product_attention", attend, key)
    _kept.append(library)


def replace(card: Card) -> None:
    """Put the choice in the place of torch's function, for fake CPU tensors."""

    def attention(
        query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ):  # type: ignore[no-untyped-def]
        return attend(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)

    functional.scaled_dot_product_attention = attention


def attend(query, key, value, mask=None, dropout=0.0, causal=False, *, scale=None, enable_gqa=False):  # type: ignore[no-untyped-def]
    """`aten::scaled_dot_product_attention`."""
    kernel = choose(query, key, value, mask, enable_gqa, causal)
    chosen[kernel] = chosen.get(kernel, 0) + 1
    if mask is not None and mask.dtype is torch.bool:
        mask = torch.where(mask, 0.0, torch.scalar_tensor(-math.inf, dtype=query.dtype, device=query.device))
    if kernel == "flash":
        size = query.shape[-1]
        scale = size**-0.5 if scale is None else scale
        query, key, value = (_padded(tensor, FLASH_ALIGNMENT) for tensor in (query, key, value))
        out = aten._scaled_dot_product_flash_attention(
            query, key, value, dropout, causal, False, scale=scale
        )[0]
        return out if out.shape[-1] == size else out[..., :size]
    if kernel == "efficient":
        if mask is not None:
            mask = _aligned(mask).expand(*query.shape[:-1], key.shape[-2])
        keeps = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
        return aten._scaled_dot_product_efficient_attention(
            query, key, value, mask, keeps, dropout, causal, scale=scale
        )[0]
    return plain(query, key, value, mask, dropout, causal, scale, enable_gqa)


def choose(query, key, value, mask, enable_gqa, causal) -> str:  # type: ignore[no-untyped-def]
    """Which kernel runs on Ampere: `flash`, `efficient` or `math`."""
    half = query.dtype in (torch.bfloat16, torch.float16)
    widths = [tensor.shape[-1] for tensor in (query, key, value)]
    heads = {tensor.shape[1] for tensor in (query, key, value)}
    dense = all(tensor.dim() == 4 and tensor.stride(-1) == 1 for tensor in (query, key, value))
    if not dense:
        return "math"
    square = not causal or query.shape[-2] == key.shape[-2]
    grouped = enable_gqa and key.shape[1] == value.shape[1] and query.shape[1] % key.shape[1] == 0
    same_heads = len(heads) == 1
    flash = half and len(set(widths)) == 1 and widths[0] <= FLASH_HEAD_DIM
    if flash and mask is None and square and (same_heads or grouped):
        return "flash"
    step = EFFICIENT_ALIGNMENT // query.element_size()
    if same_heads and widths[0] == widths[1] and all(width % step == 0 for width in widths):
        return "efficient"
    return "math"


def plain(query, key, value, mask, dropout, causal, scale, enable_gqa) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """`_scaled_dot_product_attention_math`: the mask is added in place, which it is not for fake tensors."""
    wanted = query.dtype
    root = math.sqrt(query.shape[-1] ** -0.5 if scale is None else scale)
    if wanted in (torch.bfloat16, torch.float16):
        query, key, value = query.float(), key.float(), value.float()
    query = query * root
    if causal:
        mask = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
        mask = torch.where(mask, 0.0, torch.scalar_tensor(-math.inf, dtype=query.dtype, device=query.device))
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    scores = torch.matmul(query, key.transpose(-2, -1) * root)
    if mask is not None:
        scores.add_(mask)
    scores = aten._safe_softmax(scores, -1)
    if dropout > 0.0:
        scores = functional.dropout(scores, dropout)
    out = torch.matmul(scores, value).to(wanted)
    scores.to(wanted)
    return out


def _padded(tensor: torch.Tensor, multiple: int) -> torch.Tensor:
    rest = -tensor.shape[-1] % multiple
    return functional.pad(tensor, (0, rest)) if rest else tensor


def _aligned(mask: torch.Tensor) -> torch.Tensor:
    if mask.stride(-1) == 1 and all(stride % MASK_ALIGNMENT == 0 for stride in mask.stride()[:-1]):
        return mask
    rest = MASK_ALIGNMENT - mask.shape[-1] % MASK_ALIGNMENT
    return functional.pad(mask, (0, rest))[..., : mask.shape[-1]]
