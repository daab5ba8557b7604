"""Apple's GPUs (`ggml-metal/ggml-metal.cpp`, `ggml-metal-device.m`, `ggml-metal-ops.cpp`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from willfit.engines.llama_cpp.backends.asking import MIN_ROWS, lies_elsewhere, rows
from willfit.engines.llama_cpp.backends.metal_fusion import lifetimes
from willfit.engines.llama_cpp.backends.metal_order import ordered
from willfit.engines.llama_cpp.backends.processor import ENDLESS
from willfit.engines.llama_cpp.graph.fusion import Optimized
from willfit.engines.llama_cpp.graph.tensor import VIEW_OPS, Buffer, Node

#: Widths of heads that attention has kernels for.
_WIDTHS = frozenset((32, 40, 48, 64, 72, 80, 96, 112, 128, 192, 256, 320, 512, 576))
_QUANTIZED = frozenset(("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"))
_CACHED = _QUANTIZED | {"F32", "F16", "BF16"}
_FLOATS = frozenset(("F32", "F16"))
_WRITTEN = _CACHED | {"IQ4_NL", "TQ2_0"}
_NO_PRODUCTS = frozenset(("NVFP4", "TQ1_0"))
#: What can be copied into what.
_COPIES: dict[str, frozenset[str]] = {
    "F32": _WRITTEN | {"Q1_0", "Q2_0", "I32"},
    "F16": _FLOATS,
    "BF16": frozenset(("F32", "BF16")),
    **dict.fromkeys((*_QUANTIZED, "Q1_0", "Q2_0", "TQ2_0"), _FLOATS),
    "I32": frozenset(("F32", "I32")),
}
#: Columns, rows and tokens from which F16 rows have a kernel.
_WIDE, _FEW_ROWS, _FEW_TOKENS = 64, 8, 32
#: Queries and cells that a group of threads attends with (`OP_FLASH_ATTN_EXT_NQPSG`, `_NCPSG`; `_VEC_` for few).
_QUERIES, _CELLS = 8, 64
_VECTOR_QUERIES, _VECTOR_CELLS = 1, 32
#: Queries below which attention is computed without tiles, and from which a quantized cache is copied to F16.
_FEW_QUERIES, _COPIED_QUERIES = 20, 32
#: Groups that share a query, at most so many queries, and their two sums each.
_GROUPS, _SHARED_QUERIES, _SUMS = 32, 32, 2
#: Scales of a product with experts (`N_MM_NPART_AMAX`, and two factors).
_EXPERT_SCALES = 8 + 256 * 4
_INDEX_SHAPE, _MIXES, _STREAMS = (128, 64), 24, 4


@dataclass(frozen=True, slots=True)
class Metal:
    """One device.

    Attributes
    ----------
    index
        Which one.
    offloads
        It computes large products with weights that lie on the host; older builds did not.
    reorders
        Operations that can run at once are brought together.
    looks_far
        They come from further ahead and across more operations.
    fuses
        Kernels that compute several operations keep what they read.
    copies_cache
        Quantized caches are copied to F16 for attention.
    has_workspaces
        What kernels work with is behind their results; in older builds, in a pool.
    """

    index: int
    offloads: bool = True
    reorders: bool = True
    looks_far: bool = True
    fuses: bool = True
    copies_cache: bool = True
    has_workspaces: bool = True
    alignment: int = 32
    maps_files: bool = True
    largest_buffer: int = ENDLESS

    @property
    def place(self) -> str:
        """See `Backend.place`."""
        return f"MTL{self.index}"

    def supports(self, node: Node) -> bool:
        """See `Backend.supports`."""
        if lies_elsewhere(node, self.index):
            return False
        if node.op in _ALWAYS:
            return True
        check = _CHECKS.get(node.op)
        return check is not None and check(node)

    def reads(self, buffer: Buffer) -> bool:
        """See `Backend.reads`."""
        return buffer.device == self.index

    def takes_over(self, node: Node) -> bool:
        """See `Backend.takes_over`: on a Mac plain products are Accelerate's, which reads the host's memory."""
        if not self.offloads or rows(node) < MIN_ROWS:
            return False
        return node.op == "mul_mat_id" or (node.op == "mul_mat" and not _accelerated(node))

    def optimize(self, nodes: Sequence[Node], uses: Mapping[int, int]) -> Optimized:
        """See `Backend.optimize`."""
        if not self.reorders:
            return Optimized(nodes)
        return Optimized(
            ordered(nodes, uses, self.looks_far, self.fuses), lifetimes(nodes) if self.fuses else ()
        )

    def bytes(self, node: Node) -> int:
        """See `Backend.bytes`: some operations keep what they work with behind their result."""
        size = node.bytes
        if not self.has_workspaces:
            return size
        if node.op == "mul_mat_id":
            experts, tokens = node.src[0].ne[2], node.src[2].ne[1]
            return size + 4 * experts + 4 * experts * tokens + _EXPERT_SCALES
        if node.op == "flash_attn_ext":
            return size + _attention_bytes(node, self.copies_cache)
        if node.op in ("cumsum", "argsort"):
            return 2 * size
        if node.op == "top_k":
            return 2 * 4 * node.src[0].elements
        return size


def _accelerated(node: Node) -> bool:
    """Whether Accelerate computes a product (`ggml_backend_blas_device_supports_op`)."""
    weights, given = node.src[:2]
    enough = min(*node.ne[:2], given.ne[0]) >= MIN_ROWS
    return enough and given.type == "F32" and weights.is_contiguous and given.is_contiguous


def _attention_bytes(node: Node, copies: bool) -> int:
    """What attention works with: padding of the last cells, which blocks are masked, sums, F16 copies."""
    q, k, v = node.src[:3]
    mask = node.src[3] if len(node.src) > 3 and node.src[3].type == "F16" else None
    shared = v.view is not None and (v.view is k or (v.view is k.view and v.offset == k.offset))
    masks = mask.ne[2] * mask.ne[3] if mask is not None else 0
    k_row, v_row = k.nb[1], v.nb[1]
    if copies and q.ne[1] >= _COPIED_QUERIES and k.type in _QUANTIZED:
        k_row, v_row = 2 * k.ne[0], 2 * (k.ne[0] if shared else v.ne[0])
    size = _CELLS * (k_row * k.ne[2] * k.ne[3] + v_row * v.ne[2] * v.ne[3])
    if mask is not None:
        size += _CELLS * 2 * mask.ne[1] * masks
        few = q.ne[1] < _FEW_QUERIES and q.ne[0] % 32 == 0
        queries, cells = (_VECTOR_QUERIES, _VECTOR_CELLS) if few else (_QUERIES, _CELLS)
        size += _padded(-(-q.ne[1] // queries) * -(-mask.ne[0] // cells) * masks, 32)
    size += 4 * min(q.ne[1], _SHARED_QUERIES) * q.ne[2] * q.ne[3] * _GROUPS * (v.ne[0] + _SUMS)
    if not copies:
        return size
    size += _padded(2 * k.elements, 16)
    return size if shared else size + _padded(2 * v.elements, 16)


def _padded(size: int, step: int) -> int:
    return -(-size // step) * step


def _attends(node: Node) -> bool:
    q, k, v = node.src[:3]
    if q.ne[0] not in _WIDTHS or k.ne[0] < v.ne[0] or (k.ne[0] == 72 and v.ne[0] != 72):
        return False
    return k.type == v.type and k.type in _CACHED


def _rows(node: Node) -> bool:
    return node.src[0].has_plain_rows


def _floats(node: Node) -> bool:
    return _rows(node) and node.src[0].type in _FLOATS


def _arithmetic(node: Node) -> bool:
    return _floats(node) and node.src[1].type == node.src[0].type and node.src[1].has_plain_rows


def _product(node: Node) -> bool:
    weights, rows = node.src[:2]
    if weights.type in _NO_PRODUCTS:
        return False
    if rows.type != "F16":
        return True
    if weights.type == "BF16":
        return False
    if node.op == "mul_mat_id":
        return weights.ne[0] >= _WIDE and node.src[2].ne[1] >= _FEW_TOKENS
    return weights.type == "F16" or (weights.ne[0] >= _WIDE and rows.ne[1] > _FEW_ROWS)


def _writes(node: Node) -> bool:
    given = node.src[0].type
    return node.type == "F16" if given == "F16" else given == "F32" and node.type in _WRITTEN


def _single(node: Node) -> bool:
    return all(one.type == "F32" for one in (node, *node.src))


_ALWAYS = VIEW_OPS | {
    "none", "repeat", "rope", "rope_back", "argsort", "top_k", "arange", "ssm_scan", "ssm_conv", "rwkv_wkv6",
    "rwkv_wkv7", "diag",
}  # fmt: skip
_CHECKS: dict[str, Callable[[Node], bool]] = {
    **dict.fromkeys(("scale", "fill", "clamp", "sqr", "sqrt", "sin", "cos", "log", "unary"), _floats),
    "glu": lambda node: node.src[0].contiguous_beyond(1) and node.src[0].type in _FLOATS,
    "concat": lambda node: all(source.type == node.type for source in node.src),
    **dict.fromkeys(("add", "sub", "mul", "div", "add_id"), _arithmetic),
    **dict.fromkeys(
        ("sum_rows", "cumsum", "mean", "soft_max", "group_norm", "l2_norm", "norm", "rms_norm", "tri"), _rows
    ),
    "pad": lambda node: node.src[0].type == "F32",
    "solve_tri": lambda node: node.src[0].type == "F32",
    "pool_2d": _single,
    "flash_attn_ext": _attends,
    "lightning_indexer": lambda node: node.src[0].ne[:2] == _INDEX_SHAPE and node.src[1].type in _CACHED,
    "dsv4_hc_comb": lambda node: _single(node) and node.src[0].ne[0] == _MIXES,
    "dsv4_hc_pre": _single,
    "dsv4_hc_post": lambda node: _single(node) and node.src[1].ne[1] == _STREAMS,
    "gated_delta_net": lambda node: node.src[2].ne[0] % 32 == 0,
    "mul_mat": _product,
    "mul_mat_id": _product,
    **dict.fromkeys(
        ("set", "cpy", "dup", "cont"), lambda node: node.type in _COPIES.get(node.src[0].type, ())
    ),
    "get_rows": lambda node: node.src[0].type not in _NO_PRODUCTS,
    "set_rows": _writes,
}
