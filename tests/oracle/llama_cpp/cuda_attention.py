"""Where the CUDA backend has flash attention, and what its kernels take beside the result.

`ggml/src/ggml-cuda/fattn.cu` (`ggml_cuda_get_best_fattn_kernel`, `ggml_cuda_flash_attn_ext_get_alloc_size`), release
0.5.0, built with the default `GGML_CUDA_FA_QUANTS`.
"""

from __future__ import annotations

import struct

from .ggml import Ggml, Tensor

#: Keys in multiples of this are needed for the kernels that share a KV head among query heads.
_KEY_STRIDE = 256

_TURING, _VOLTA, _ADA = 750, 700, 890
_AMD = 0x1000000
_CDNA, _RDNA1, _RDNA3 = (_AMD + 0x908, _AMD + 0x1010, _AMD + 0x1100)

_TYPES = frozenset("f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0".split())
#: Pairs of types for which a vector kernel is compiled.
_COMPILED = frozenset({("q4_0", "q4_0"), ("q8_0", "q8_0"), ("f16", "f16"), ("bf16", "bf16")})


def flash_attention_supported(ggml: Ggml, architecture: int, node: Tensor) -> bool:
    """Whether a kernel does it."""
    return _kernel(ggml, architecture, node) is not None


def flash_attention_bytes(ggml: Ggml, architecture: int, node: Tensor) -> int:
    """Bytes of the result, and behind it of keys and values as F16 where the kernel wants them so."""
    size = int(ggml.base.ggml_nbytes(node.address))
    kernel = _kernel(ggml, architecture, node)
    if kernel is None:
        return size
    keys, values = node.source(1), node.source(2)
    assert keys is not None
    assert values is not None
    convert_keys = convert_values = True
    if kernel == "vector":
        kinds = (ggml.type_names[keys.type], ggml.type_names[values.type])
        plain = tuple("f16" if kind == "f32" else kind for kind in kinds)
        fallback = plain not in _COMPILED or _queries(node).ne[0] not in (64, 128, 256)
        convert_keys, convert_values = (kind == "f32" or fallback for kind in kinds)
    half = ggml.types["f16"]
    if convert_keys and keys.type != half:
        size = _padded(size) + 2 * ggml.base.ggml_nelements(keys.address)
    if convert_values and values.type != half and not _is_view(values, keys):
        size = _padded(size) + 2 * ggml.base.ggml_nelements(values.address)
    return size


def _is_view(values: Tensor, keys: Tensor) -> bool:
    """Whether the values are part of the keys (latent attention)."""
    if not values.view_src:
        return False
    return values.view_src == keys.address or (
        values.view_src == keys.view_src and values.view_offs == keys.view_offs
    )


def _padded(size: int) -> int:
    return -(-size // 128) * 128


def _queries(node: Tensor) -> Tensor:
    queries = node.source(0)
    assert queries is not None
    return queries


def _kernel(ggml: Ggml, architecture: int, node: Tensor) -> str | None:
    """`matrix` (tensor cores), `tile` or `vector`; None if there is none."""
    queries, keys, values, mask = (node.source(i) for i in range(4))
    assert queries is not None
    assert keys is not None
    assert values is not None
    ratio = queries.ne[2] // keys.ne[2]
    shared = _shares_heads(ggml, node, ratio)
    if not _head_size_known(keys.ne[0], values.ne[0], ratio, shared):
        return None
    kinds = {ggml.type_names[keys.type], ggml.type_names[values.type]}
    if not kinds <= _TYPES or (mask is not None and mask.ne[2] != 1):
        return None
    size, rows = queries.ne[0], queries.ne[1]
    vector = size <= 256 and size % 64 == 0 and size != 192 and keys.ne[1] % _KEY_STRIDE == 0
    quantized = keys.type in ggml.quantized or values.type in ggml.quantized
    cores = size not in (40, 72)
    if _TURING <= architecture < _AMD and cores:
        if vector and _few_queries(architecture, queries, keys, ratio, shared, quantized):
            return "vector"
        return "matrix"
    effective = _effective_ratio(size, ratio)
    if architecture == _VOLTA and cores:
        if vector and rows * effective <= 2:
            return "vector"
        return "tile" if rows * effective <= 16 else "matrix"
    if architecture >= _AMD and cores and _amd_matrix(architecture, size, rows * effective, shared):
        return "matrix"
    if vector and ((quantized and rows <= 2) or (not quantized and rows == 1 and not shared)):
        return "vector"
    return "tile"


def _shares_heads(ggml: Ggml, node: Tensor, ratio: int) -> bool:
    """Whether the query heads of a KV head go through one kernel together."""
    keys, mask = node.source(1), node.source(3)
    assert keys is not None
    max_bias = struct.unpack("<f", struct.pack("<i", node.op_params[1]))[0]
    if ratio < 2 or mask is None or max_bias != 0 or keys.ne[1] % _KEY_STRIDE:
        return False
    return all(
        one.type in ggml.quantized or not any(stride % 16 for stride in one.nb[1:])
        for one in (node.source(i) for i in range(4))
        if one is not None
    )


def _head_size_known(keys: int, values: int, ratio: int, shared: bool) -> bool:
    if keys in (40, 64, 72, 80, 96, 112, 128, 256):
        return values == keys
    if keys == 192:
        return values == 128 and shared and ratio % 8 == 0
    if keys == 320:
        return values == 256 and shared and ratio % 32 == 0
    return (keys, values) in ((512, 512), (576, 512)) and shared


def _few_queries(
    architecture: int, queries: Tensor, keys: Tensor, ratio: int, shared: bool, quantized: bool
) -> bool:
    """Whether so few rows are better done without tensor cores (the sparse kernel aside)."""
    rows = queries.ne[1]
    if quantized and rows <= (2 if architecture >= _ADA else 1):
        return True
    if rows != 1:
        return False
    if not quantized and architecture >= _ADA and queries.ne[3] == 1:
        wide = ratio > 4 and (queries.ne[0] >= 256 or keys.ne[1] >= 8192)
        return not wide or not shared
    return not shared


def _effective_ratio(size: int, ratio: int) -> int:
    most = {320: 32, 576: 16, 192: 16}.get(size, 8)
    found = 1
    while ratio % (2 * found) == 0 and found < most:
        found *= 2
    return found


def _amd_matrix(architecture: int, size: int, rows: int, shared: bool) -> bool:
    if _CDNA <= architecture < _RDNA1 and architecture not in (_AMD + 0x909, _AMD + 0x90C):
        limit = 8 if size <= 64 else 16 if size <= 128 else 64 if size <= 256 else 128
        return rows > limit and (size <= 256 or shared)
    return architecture >= _RDNA3 and shared and size <= 256 and rows > (8 if size <= 128 else 16)
