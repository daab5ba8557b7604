"""Apple's GPUs (`ggml-metal/ggml-metal.cpp`, `ggml-metal-ops.cpp`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from willfit.engines.llama_cpp.backends.processor import ENDLESS
from willfit.engines.llama_cpp.graph.tensor import Buffer, Node

#: Widths of heads that attention has kernels for.
_WIDTHS = frozenset((32, 40, 48, 64, 72, 80, 96, 112, 128, 192, 256, 320, 512, 576))
_CACHED = frozenset(("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"))
_FLOATS = frozenset(("F32", "F16"))
#: Rows from which a product whose weights are on the host is computed on the device.
_MIN_ROWS = 32
#: Queries and cells that a group of threads attends with (`OP_FLASH_ATTN_EXT_NQPSG`, `_NCPSG`; `_VEC_` for few).
_QUERIES, _CELLS = 8, 64
_VECTOR_QUERIES, _VECTOR_CELLS = 1, 32
#: Queries below which attention is computed without tiles.
_FEW_QUERIES = 20
#: Groups that share a query, at most so many queries, and their two sums each.
_GROUPS, _SHARED_QUERIES, _SUMS = 32, 32, 2
#: Scales of a product with experts (`N_MM_NPART_AMAX`, and two factors).
_EXPERT_SCALES = 8 + 256 * 4


@dataclass(frozen=True, slots=True)
class Metal:
    """One device.

    Attributes
    ----------
    index
        Which one.
    """

    index: int
    alignment: int = 32
    maps_files: bool = True
    largest_buffer: int = ENDLESS

    @property
    def place(self) -> str:
        """See `Backend.place`."""
        return f"MTL{self.index}"

    def supports(self, node: Node) -> bool:
        """See `Backend.supports`."""
        if node.op == "flash_attn_ext":
            q, k, v = node.src[:3]
            return q.ne[0] in _WIDTHS and k.ne[0] >= v.ne[0] and k.type == v.type and k.type in _CACHED
        if node.op in ("add", "sub", "mul", "div"):
            return node.src[0].type in _FLOATS and node.src[0].type == node.src[1].type
        return True

    def reads(self, buffer: Buffer) -> bool:
        """See `Backend.reads`."""
        return buffer.device == self.index

    def takes_over(self, node: Node) -> bool:
        """See `Backend.takes_over`."""
        if node.op == "mul_mat":
            return node.ne[1] >= _MIN_ROWS
        return node.op == "mul_mat_id" and node.ne[2] >= _MIN_ROWS

    def lifetimes(self, nodes: Sequence[Node], uses: Mapping[int, int]) -> Iterable[tuple[Node, Node]]:
        """See `Backend.lifetimes`."""
        return ()

    def bytes(self, node: Node) -> int:
        """See `Backend.bytes`: some operations keep what they work with behind their result."""
        size = node.bytes
        if node.op == "mul_mat_id":
            experts, tokens = node.src[0].ne[2], node.src[2].ne[1]
            return size + 4 * experts + 4 * experts * tokens + _EXPERT_SCALES
        if node.op == "flash_attn_ext":
            return size + _attention_bytes(node)
        if node.op in ("cumsum", "argsort"):
            return 2 * size
        if node.op == "top_k":
            return 2 * 4 * node.src[0].elements
        return size


def _attention_bytes(node: Node) -> int:
    """What attention works with: padding of the last cells, which blocks are masked, sums, F16 copies."""
    q, k, v = node.src[:3]
    mask = node.src[3] if len(node.src) > 3 and node.src[3].type == "F16" else None
    shared = v.view is not None and (v.view is k or (v.view is k.view and v.offset == k.offset))
    rows = mask.ne[1] * mask.ne[2] * mask.ne[3] if mask is not None else 0
    copied = k.type not in _FLOATS and k.type != "BF16"
    k_row = 2 * k.ne[0] if copied else k.nb[1]
    v_row = 2 * (k.ne[0] if shared else v.ne[0]) if copied else v.nb[1]
    size = _CELLS * (k_row * k.ne[2] * k.ne[3] + v_row * v.ne[2] * v.ne[3] + 2 * rows)
    if mask is not None:
        few = q.ne[1] < _FEW_QUERIES and q.ne[0] % 32 == 0
        queries, cells = (_VECTOR_QUERIES, _VECTOR_CELLS) if few else (_QUERIES, _CELLS)
        blocks = -(-q.ne[1] // queries) * -(-mask.ne[0] // cells) * mask.ne[2] * mask.ne[3]
        size += -(-blocks // 32) * 32
    size += 4 * min(q.ne[1], _SHARED_QUERIES) * q.ne[2] * q.ne[3] * _GROUPS * (v.ne[0] + _SUMS)
    size += -(-2 * k.elements // 16) * 16
    return size if shared else size + -(-2 * v.elements // 16) * 16
