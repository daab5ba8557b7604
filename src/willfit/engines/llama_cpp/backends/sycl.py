"""Intel's GPUs (`ggml-sycl/ggml-sycl.cpp`, `fattn.cpp`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from willfit.engines.llama_cpp.backends.processor import ENDLESS
from willfit.engines.llama_cpp.graph.fusion import Optimized
from willfit.engines.llama_cpp.graph.tensor import Buffer, Node, row_bytes
from willfit.ggml_types import GGML_TYPES

_MIN_ROWS = 32
#: Elements to which rows of quantized matrices are padded (`MATRIX_ROW_PADDING`).
_ROW_PADDING = 512
#: Cells that a kernel works on at once (`FATTN_KQ_STRIDE`).
_STRIDE = 256
#: Widths of heads with kernels, keys and values alike.
_EQUAL = frozenset((40, 64, 72, 80, 96, 112, 128, 256, 512))
#: Widths of latent attention.
_LATENT = (576, 512)
_CACHED = frozenset(("F32", "F16", "BF16", "Q4_0", "Q8_0"))
#: Caches that oneDNN attends to, from F16 copies where they are something else.
_COPIED = frozenset(("F32", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"))
_MAMBA2_STATES, _WARP, _INDEX_WIDTH = (128, 256), 16, 128
_NO_PRODUCTS = frozenset(("TQ1_0", "TQ2_0"))
_NO_COPIES = frozenset((
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ1_S", "IQ1_M", "IQ3_S",
    "IQ4_XS",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sycl:
    """One device.

    Attributes
    ----------
    index
        Which one.
    attends
        It has flash attention; older builds had none.
    has_workspaces
        What attention works with is behind its result; in older builds, in a pool.
    """

    index: int
    attends: bool = True
    has_workspaces: bool = True
    alignment: int = 128
    largest_buffer: int = ENDLESS

    @property
    def place(self) -> str:
        """See `Backend.place`."""
        return f"SYCL{self.index}"

    def supports(self, node: Node) -> bool:
        """See `Backend.supports`."""
        for source in node.src:
            if source.view is None and source.buffer is not None:
                device = source.buffer.device
                if device is not None and device != self.index:
                    return False
        if node.op == "flash_attn_ext":
            return self.attends and _attends(node)
        check = _CHECKS.get(node.op)
        return check is None or check(node)

    def reads(self, buffer: Buffer) -> bool:
        """See `Backend.reads`."""
        return buffer.device == self.index

    def takes_over(self, node: Node) -> bool:
        """See `Backend.takes_over`."""
        if node.op == "get_rows":
            return False
        if node.op == "mul_mat":
            return node.ne[1] >= _MIN_ROWS
        if node.op in ("mul_mat_id", "rope"):
            return node.ne[2] >= _MIN_ROWS
        return node.ne[1] * node.ne[2] * node.ne[3] >= _MIN_ROWS

    def optimize(self, nodes: Sequence[Node], uses: Mapping[int, int]) -> Optimized:
        """See `Backend.optimize`."""
        return Optimized(nodes)

    def bytes(self, node: Node) -> int:
        """See `Backend.bytes`."""
        size = node.bytes
        if node.op == "flash_attn_ext" and self.has_workspaces:
            size = self._with_workspace(node, size)
        if GGML_TYPES[node.type].block > 1 and node.ne[0] % _ROW_PADDING:
            size += row_bytes(node.type, _ROW_PADDING - node.ne[0] % _ROW_PADDING)
        return size

    def _with_workspace(self, node: Node, size: int) -> int:
        """Bytes of attention's result with F16 copies behind it: the worst of all its kernels."""
        q, k, v = node.src[:3]
        shared = v.view is not None and (v.view is k or (v.view is k.view and v.offset == k.offset))
        one = _one_call(node)
        halves = k.type == v.type == "F16"
        copies = {
            "q": q.ne[2] * q.ne[1] * k.ne[0] if one else 0,
            "k": k.elements if k.type != "F16" or (one and not halves) else 0,
            "v": v.elements if v.type != "F16" or (one and not halves) else 0,
            "scale": int(one),
            "out": q.ne[2] * q.ne[1] * k.ne[0] if one else 0,
        }
        if shared and not one:
            copies["v"] = 0
        for count in copies.values():
            if count:
                size = -(-size // self.alignment) * self.alignment + 2 * count
        return size


def _one_call(node: Node) -> bool:
    """Whether oneDNN can attend, were the batch long enough (`ggml_sycl_flash_attn_ext_onednn_supported`)."""
    q, k, v = node.src[:3]
    if {k.type, v.type} != {"F16"} and not {k.type, v.type} <= _COPIED:
        return False
    others = node.src[3:]
    if len(others) != 1 or others[0].type != "F16" or others[0].ne[2:] != (1, 1):
        return False
    return node.kind != "alibi" and v.ne[0] == k.ne[0] and q.ne[3] == 1


def _attends(node: Node) -> bool:
    q, k, v = node.src[:3]
    mask = node.src[3] if len(node.src) > 3 else None
    if (k.ne[0], v.ne[0]) == _LATENT:
        if q.ne[2] // k.ne[2] < 2 or mask is None or k.ne[1] % _STRIDE:
            return False
    elif k.ne[0] not in _EQUAL or v.ne[0] != k.ne[0]:
        return False
    return k.type == v.type and k.type in _CACHED and (mask is None or mask.ne[2] == 1)


def _product(node: Node) -> bool:
    a, b = node.src[:2]
    return a.ne[3] == b.ne[3] and a.type not in _NO_PRODUCTS


def _scans(node: Node) -> bool:
    state, decay = node.src[0], node.src[3]
    return decay.ne[0] == 1 and state.ne[0] in _MAMBA2_STATES and state.ne[1] % _WARP == 0


_CHECKS: dict[str, Callable[[Node], bool]] = {
    "glu": lambda node: node.src[0].is_contiguous_after(1),
    "mul_mat": _product,
    "mul_mat_id": _product,
    "cpy": lambda node: node.type not in _NO_COPIES and node.type not in _NO_PRODUCTS,
    "set_rows": lambda node: node.type not in _NO_PRODUCTS,
    "sum_rows": lambda node: node.src[0].is_contiguous,
    "mean": lambda node: node.src[0].is_contiguous,
    "tri": lambda node: node.src[0].is_contiguous,
    "ssm_scan": _scans,
    "lightning_indexer": lambda node: node.src[0].ne[0] == _INDEX_WIDTH,
}
