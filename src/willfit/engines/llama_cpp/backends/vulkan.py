"""Devices behind Vulkan (`ggml-vulkan/ggml-vulkan.cpp`)."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.llama_cpp.backends.processor import ENDLESS
from willfit.engines.llama_cpp.graph.tensor import Buffer, Node

_MIN_ROWS = 32


@dataclass(frozen=True, slots=True)
class Vulkan:
    """One device.

    Attributes
    ----------
    index, name
        Which one, and what its buffers are called.
    """

    index: int
    name: str = "Vulkan"
    alignment: int = 128
    largest_buffer: int = ENDLESS

    @property
    def place(self) -> str:
        """See `Backend.place`."""
        return f"{self.name}{self.index}"

    def supports(self, node: Node) -> bool:
        """See `Backend.supports`."""
        return all(
            source.view is not None or source.buffer is None or source.buffer.device in (None, self.index)
            for source in node.src
        )

    def reads(self, buffer: Buffer) -> bool:
        """See `Backend.reads`."""
        return buffer.device == self.index

    def takes_over(self, node: Node) -> bool:
        """See `Backend.takes_over`."""
        if node.op == "get_rows":
            return False
        rows = node.ne[2] if node.op == "mul_mat_id" else node.ne[1]
        return rows >= _MIN_ROWS

    def bytes(self, node: Node) -> int:
        """See `Backend.bytes`."""
        return node.bytes
