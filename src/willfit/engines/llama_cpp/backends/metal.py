"""Apple's GPUs (`ggml-metal/ggml-metal.cpp`)."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.llama_cpp.backends.processor import ENDLESS
from willfit.engines.llama_cpp.graph.tensor import Buffer, Node

#: Widths of heads that attention has kernels for.
_WIDTHS = frozenset((32, 40, 48, 64, 72, 80, 96, 112, 128, 192, 256, 320, 512, 576))
_CACHED = frozenset(("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"))
_MIN_ROWS = 32


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
    largest_buffer: int = ENDLESS

    @property
    def place(self) -> str:
        """See `Backend.place`."""
        return "Metal"

    def supports(self, node: Node) -> bool:
        """See `Backend.supports`."""
        if node.op == "flash_attn_ext":
            q, k, v = node.src[:3]
            return q.ne[0] in _WIDTHS and k.ne[0] >= v.ne[0] and k.type == v.type and k.type in _CACHED
        return True

    def reads(self, buffer: Buffer) -> bool:
        """See `Backend.reads`."""
        return buffer.device == self.index

    def takes_over(self, node: Node) -> bool:
        """See `Backend.takes_over`."""
        if node.op == "mul_mat":
            return node.ne[1] >= _MIN_ROWS
        return node.op == "mul_mat_id" and node.ne[2] >= _MIN_ROWS

    def bytes(self, node: Node) -> int:
        """See `Backend.bytes`."""
        return node.bytes
