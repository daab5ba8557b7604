"""Devices behind Vulkan (`ggml-vulkan/ggml-vulkan.cpp`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from willfit.engines.llama_cpp.graph.tensor import Buffer, Node

_MIN_ROWS = 32
#: Most bytes of one allocation (`suballocation_block_size`).
BLOCK_BYTES = 2**30
_CACHED = frozenset(("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL"))


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
    alignment: int = 16
    largest_buffer: int = BLOCK_BYTES

    @property
    def place(self) -> str:
        """See `Backend.place`."""
        return f"{self.name}{self.index}"

    def supports(self, node: Node) -> bool:
        """See `Backend.supports`."""
        if node.op == "flash_attn_ext" and not _attends(node):
            return False
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

    def lifetimes(self, nodes: Sequence[Node], uses: Mapping[int, int]) -> Iterable[tuple[Node, Node]]:
        """See `Backend.lifetimes`."""
        return ()

    def bytes(self, node: Node) -> int:
        """See `Backend.bytes`."""
        return node.bytes


def _attends(node: Node) -> bool:
    """Whether attention has a shader for these heads and types."""
    k, v = node.src[1], node.src[2]
    return not (k.ne[0] % 8 or v.ne[0] % 8) and k.type in _CACHED and v.type in _CACHED
