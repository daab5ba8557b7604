"""Which kernel scaled dot-product attention takes on an NVIDIA card.

`sdp::select_sdp_backend` (ATen/native/transformers/cuda/sdp_utils.cpp, 2.13.0) asks the backends in an order, and takes
the first that is switched on and can. Its answer depends on shapes, strides, types, what needs gradients and the card's
compute capability, all of which fake tensors have. Read for dense tensors; nested ones are not.

The order is torch's own (`torch._C._get_sdp_priority_order`), and so are the switches
(`torch.backends.cuda.enable_flash_sdp` and its like, `torch.nn.attention.sdpa_kernel`): both are read at each call.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend

Capability = tuple[int, int]

HALF = (torch.float16, torch.bfloat16)
FLASH, EFFICIENT, CUDNN, MATH = "flash", "efficient", "cudnn", "math"
#: `check_prefer_cudnn_attention` puts cuDNN first on these generations if cuDNN is newer than 9.15.0, as the one of
#: torch 2.13.0's wheels for CUDA 13 is (9.20.0).
PREFER_CUDNN = (9, 10)
CUDNN_FIRST = (
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)
#: `check_flash_attention_hardware_support`, `check_cudnn_hardware_support`; `check_mem_efficient_hardware_support`.
FUSED_CARDS: tuple[Capability, Capability] = ((8, 0), (12, 1))
EFFICIENT_CARDS: tuple[Capability, Capability] = ((5, 0), (12, 1))
#: `check_head_dim_size_flash`.
FLASH_WIDTH = 256
#: `check_requires_grad_and_head_dim_gt192_constraints_on_sm86_89_or_120`: cards with little shared memory cannot take
#: the gradient of widths over 192, but for those over 224 without dropout.
FLASH_SMALL_CARDS: tuple[tuple[Capability, Capability], ...] = (((8, 6), (8, 9)), ((12, 0), (12, 1)))
FLASH_SMALL_WIDTH, FLASH_SPLIT_WIDTH = 192, 224
#: `check_cudnn_tensor_shapes`, with cuDNN 9.11 or newer: widths in general, on 9.0, and the one pair on 10.x.
CUDNN_WIDTH, CUDNN_WIDTH_HOPPER, CUDNN_WIDTHS_BLACKWELL = 128, 256, (192, 128)
CUDNN_WIDTH_STEP = 8
CUDNN_MOST = 65535
#: `check_cudnn_dropout`.
CUDNN_DROPOUT_STEPS = 16
#: `minimum_gemm_alignment`: elements that products read at once, without and with tensor cores (in bits).
GEMM_ELEMENTS, GEMM_BITS = 4, 128


@dataclass(frozen=True, slots=True)
class Call:
    """What attention is called with."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    dropout: float
    causal: bool
    enable_gqa: bool

    @property
    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query, key and value."""
        return self.query, self.key, self.value

    @property
    def needs_grad(self) -> bool:
        """Whether a backward pass will follow."""
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in self.tensors)


def choose(call: Call, capability: Capability) -> str:
    """`flash`, `efficient`, `cudnn` or `math`.

    Parameters
    ----------
    capability
        Of the card.

    Raises
    ------
    RuntimeError
        If no backend that is switched on can, as torch does.
    """
    for backend in torch._C._get_sdp_priority_order():
        if backend == SDPBackend.CUDNN_ATTENTION.value and can_cudnn(call, capability):
            return CUDNN
        if backend == SDPBackend.FLASH_ATTENTION.value and can_flash(call, capability):
            return FLASH
        if backend == SDPBackend.EFFICIENT_ATTENTION.value and can_efficient(call, capability):
            return EFFICIENT
        if backend == SDPBackend.MATH.value and torch.backends.cuda.math_sdp_enabled():
            return MATH
    raise RuntimeError("No available kernel. Aborting execution.")


def can_flash(call: Call, capability: Capability) -> bool:
    """`can_use_flash_attention`."""
    query, key = call.query, call.key
    return (
        torch.backends.cuda.flash_sdp_enabled()
        and _four_dimensions(call)
        and call.mask is None
        and len({tensor.shape[-1] for tensor in call.tensors}) == 1
        and query.shape[-1] <= FLASH_WIDTH
        and FUSED_CARDS[0] <= capability <= FUSED_CARDS[1]
        and _flash_backward(call, capability)
        and not (call.causal and query.shape[-2] != key.shape[-2])
        and _half(call, capability)
        and _heads(call, grouped=True, same_pairs=True)
        and _some_tokens(call)
        and _last_stride(call, ignore_one=True)
    )


def can_efficient(call: Call, capability: Capability) -> bool:
    """`can_use_mem_efficient_attention`."""
    query, value = call.query, call.value
    types = (torch.float16, torch.float32) if capability < (8, 0) else (*HALF, torch.float32)
    step = gemm_alignment(query.dtype, capability)
    return (
        torch.backends.cuda.mem_efficient_sdp_enabled()
        and EFFICIENT_CARDS[0] <= capability <= EFFICIENT_CARDS[1]
        and _four_dimensions(call)
        and query.shape[-1] == call.key.shape[-1]
        and all(width > 0 and width % step == 0 for width in (query.shape[-1], value.shape[-1]))
        and _aligned_starts(call, capability)
        and _some_tokens(call)
        and _last_stride(call, ignore_one=False)
        and _heads(call, grouped=False, same_pairs=True)
        and query.dtype in types
        and _one_type(call)
    )


def can_cudnn(call: Call, capability: Capability) -> bool:
    """`can_use_cudnn_attention`."""
    steps = call.dropout * CUDNN_DROPOUT_STEPS
    return (
        torch.backends.cuda.cudnn_sdp_enabled()
        and _four_dimensions(call)
        and not _deterministic()
        and _half(call, capability)
        and _mask_shape(call)
        and FUSED_CARDS[0] <= capability <= FUSED_CARDS[1]
        and steps == int(steps)
        and _some_tokens(call)
        and _last_stride(call, ignore_one=True)
        and _heads(call, grouped=True, same_pairs=False)
        and _cudnn_shapes(call, capability)
    )


def gemm_alignment(dtype: torch.dtype, capability: Capability) -> int:
    """`minimum_gemm_alignment`, in elements."""
    bits = 16 if dtype in HALF else 32
    elements = GEMM_ELEMENTS if capability >= (8, 0) else 1
    tensor_cores = capability >= (8, 0) or (capability >= (7, 0) and bits == 16)
    return max(elements, GEMM_BITS // bits) if tensor_cores else elements


def _deterministic() -> bool:
    return (
        torch.are_deterministic_algorithms_enabled()
        and not torch.is_deterministic_algorithms_warn_only_enabled()
    )


def _four_dimensions(call: Call) -> bool:
    return all(tensor.dim() == 4 for tensor in call.tensors)


def _one_type(call: Call) -> bool:
    return len({tensor.dtype for tensor in call.tensors}) == 1


def _half(call: Call, capability: Capability) -> bool:
    """`check_dtypes_low_precision`."""
    return call.query.dtype in (HALF if capability >= (8, 0) else (torch.float16,)) and _one_type(call)


def _some_tokens(call: Call) -> bool:
    return call.query.shape[-2] > 0 and call.key.shape[-2] > 0


def _last_stride(call: Call, ignore_one: bool) -> bool:
    """`check_last_dim_stride_equals_1_dense`."""
    rows = all(tensor.stride(-1) == 1 for tensor in call.tensors)
    if ignore_one and call.query.shape[-1] == 1:
        rows = True
    return rows and (call.mask is None or call.mask.stride(-1) == 1)


def _heads(call: Call, grouped: bool, same_pairs: bool) -> bool:
    """`check_batch_size_and_num_heads_dense`: `grouped` if the kernel shares keys, `same_pairs` if their number must be
    that of values."""
    if len({tensor.shape[0] for tensor in call.tensors}) > 1:
        return False
    queries, keys, values = (tensor.shape[-3] for tensor in call.tensors)
    if not (grouped and call.enable_gqa):
        return queries == keys == values
    if same_pairs and keys != values:
        return False
    return queries % keys == 0 and queries % values == 0


def _flash_backward(call: Call, capability: Capability) -> bool:
    small = any(first <= capability <= last for first, last in FLASH_SMALL_CARDS)
    width = call.query.shape[-1]
    if not small or not call.needs_grad or width <= FLASH_SMALL_WIDTH:
        return True
    return width > FLASH_SPLIT_WIDTH and call.dropout == 0.0


def _aligned_starts(call: Call, capability: Capability) -> bool:
    """`check_data_ptr_alignment_mem_efficient`: the allocator's blocks are aligned, so views' offsets decide."""
    if capability < (8, 0):
        return True
    step = gemm_alignment(call.query.dtype, capability) * call.query.element_size()
    return all(
        tensor.numel() == 0 or tensor.storage_offset() * tensor.element_size() % step == 0
        for tensor in call.tensors
    )


def _mask_shape(call: Call) -> bool:
    """`check_attn_mask_shape`."""
    mask = call.mask
    if mask is None:
        return True
    if mask.requires_grad or mask.dim() not in (2, 4):
        return False
    whole = (call.query.shape[0], call.query.shape[1], call.query.shape[2], call.key.shape[2])
    return all(size in (1, wanted) for size, wanted in zip(mask.shape, whole[-mask.dim() :], strict=True))


def _cudnn_shapes(call: Call, capability: Capability) -> bool:
    """`check_cudnn_tensor_shapes`, with cuDNN 9.20."""
    query, key = call.query, call.key
    widths = (query.shape[-1], call.value.shape[-1])
    most = CUDNN_WIDTH_HOPPER if capability == (9, 0) else CUDNN_WIDTH
    if capability[0] == 10 and widths == CUDNN_WIDTHS_BLACKWELL:
        most = max(widths)
    return (
        query.shape[0] <= CUDNN_MOST
        and query.shape[1] <= CUDNN_MOST
        and all(width <= most and width % CUDNN_WIDTH_STEP == 0 for width in widths)
        and key.shape[-2] != 1
        and not (query.shape[-2] == 1 and call.dropout != 0.0)
    )
