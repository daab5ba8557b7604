"""Which kernel CUDA attends with, and the F16 copies of the cache that it needs (`ggml-cuda/fattn.cu`)."""

from __future__ import annotations

from enum import Enum

from willfit.engines.llama_cpp.graph.tensor import Node
from willfit.ggml_types import GGML_TYPES

#: Cells that a kernel works on at once.
_STRIDE = 256
#: Head widths with equal keys and values.
_EQUAL = (40, 64, 72, 80, 96, 112, 128, 256)
_CACHED = frozenset(("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"))
#: Pairs of types that released programs have vector kernels for (`GGML_CUDA_FA_QUANTS`).
_VECTOR_PAIRS = frozenset((("Q4_0", "Q4_0"), ("Q8_0", "Q8_0"), ("F16", "F16"), ("BF16", "BF16")))
_VOLTA, _TURING, _ADA = 70, 75, 89


class Kernel(Enum):
    """How attention is computed."""

    NONE = 0
    TILE = 1
    VECTOR = 2
    TENSOR_CORES = 3


def kernel_for(node: Node, arch: int | str) -> Kernel:
    """The kernel for an attention on a device.

    Parameters
    ----------
    arch
        Compute capability as 86 for 8.6, or an AMD architecture.
    """
    q, k, v = node.src[:3]
    mask = node.src[3] if len(node.src) > 3 else None
    ratio = q.ne[2] // k.ne[2]
    grouped = ratio >= 2 and mask is not None and node.kind != "alibi" and k.ne[1] % _STRIDE == 0
    for one in (q, k, v, mask):
        if one is not None and GGML_TYPES[one.type].block == 1:
            grouped = grouped and not any(step % 16 for step in one.nb[1:])
    if not _has_width(k.ne[0], v.ne[0], ratio, grouped):
        return Kernel.NONE
    if k.type not in _CACHED or v.type not in _CACHED or (mask is not None and mask.ne[2] != 1):
        return Kernel.NONE
    width, tokens = q.ne[0], q.ne[1]
    vector = width <= 256 and width % 64 == 0 and width != 192 and k.ne[1] % _STRIDE == 0
    plain = GGML_TYPES[k.type].block == 1 and GGML_TYPES[v.type].block == 1
    tensors = width not in (40, 72)
    if isinstance(arch, int) and arch >= _TURING and tensors:
        if vector and _prefers_vector(arch, plain, grouped, ratio, q, k):
            return Kernel.VECTOR
        return Kernel.TENSOR_CORES
    effective = _effective_ratio(ratio, width)
    if isinstance(arch, int) and arch == _VOLTA and tensors:
        if vector and tokens * effective <= 2:
            return Kernel.VECTOR
        return Kernel.TILE if tokens * effective <= 16 else Kernel.TENSOR_CORES
    if vector and (tokens == 1 and not grouped if plain else tokens <= 2):
        return Kernel.VECTOR
    return Kernel.TILE


def _has_width(keys: int, values: int, ratio: int, grouped: bool) -> bool:
    if keys in _EQUAL:
        return keys == values
    if keys == 192:
        return values == 128 and grouped and ratio % 8 == 0
    if keys == 320:
        return values == 256 and grouped and ratio % 32 == 0
    if keys == 512:
        return values == keys and grouped
    return keys == 576 and values == 512 and grouped


def _prefers_vector(arch: int, plain: bool, grouped: bool, ratio: int, q: Node, k: Node) -> bool:
    """Few queries are faster without tensor cores."""
    width, tokens = q.ne[0], q.ne[1]
    if not plain:
        if tokens <= (2 if arch >= _ADA else 1):
            return True
    elif (
        arch >= _ADA
        and tokens == 1
        and q.ne[3] == 1
        and not (ratio > 4 and (width >= 256 or k.ne[1] >= 8192))
    ):
        return True
    return not grouped and tokens == 1


def _effective_ratio(ratio: int, width: int) -> int:
    most = 32 if width == 320 else 16 if width in (192, 576) else 8
    effective = 1
    while ratio % (2 * effective) == 0 and effective < most:
        effective *= 2
    return effective


def copied_bytes(node: Node, size: int, kernel: Kernel) -> int:
    """Bytes of the result together with F16 copies of keys and values that the kernel cannot read as they are."""
    k, v = node.src[1], node.src[2]
    if kernel is Kernel.NONE:
        return size
    if kernel is Kernel.VECTOR:
        lacks = (k.type, v.type) not in _VECTOR_PAIRS
        copies_k, copies_v = k.type == "F32" or lacks, v.type == "F32" or lacks
    else:
        copies_k = copies_v = True
    if copies_k and k.type != "F16":
        size = -(-size // 128) * 128 + 2 * k.elements
    # Latent attention's values are a part of its keys.
    shared = v.view is not None and (v.view is k or (v.view is k.view and v.offset == k.offset))
    if copies_v and v.type != "F16" and not shared:
        size = -(-size // 128) * 128 + 2 * v.elements
    return size
