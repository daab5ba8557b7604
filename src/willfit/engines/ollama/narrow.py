"""Backends of a ggml without kernels of flash attention for wide heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from willfit.engines.llama_cpp.graph.fusion import Optimized
from willfit.engines.llama_cpp.graph.scheduler import Backend
from willfit.engines.llama_cpp.graph.tensor import Buffer, Node

#: Heads of this width.
WIDE = 512


@dataclass(frozen=True, slots=True)
class Narrow:
    """A device's backend that leaves flash attention of wide heads to the processor.

    Attributes
    ----------
    backend
        The backend as llama.cpp has it.
    """

    backend: Backend

    @property
    def place(self) -> str:
        """See `Backend.place`."""
        return self.backend.place

    @property
    def alignment(self) -> int:
        """See `Backend.alignment`."""
        return self.backend.alignment

    @property
    def maps_files(self) -> bool:
        """See `Backend.maps_files`."""
        return self.backend.maps_files

    @property
    def largest_buffer(self) -> int:
        """See `Backend.largest_buffer`."""
        return self.backend.largest_buffer

    def supports(self, node: Node) -> bool:
        """See `Backend.supports`."""
        wide = node.op == "flash_attn_ext" and node.src[1].ne[0] == WIDE
        return not wide and self.backend.supports(node)

    def reads(self, buffer: Buffer) -> bool:
        """See `Backend.reads`."""
        return self.backend.reads(buffer)

    def takes_over(self, node: Node) -> bool:
        """See `Backend.takes_over`."""
        return self.backend.takes_over(node)

    def optimize(self, nodes: Sequence[Node], uses: Mapping[int, int]) -> Optimized:
        """See `Backend.optimize`."""
        return self.backend.optimize(nodes, uses)

    def bytes(self, node: Node) -> int:
        """See `Backend.bytes`."""
        return self.backend.bytes(node)
