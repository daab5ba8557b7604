"""The host's processor (`ggml-cpu`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from willfit.engines.llama_cpp.backends.repacking import amx_bytes
from willfit.engines.llama_cpp.graph.fusion import Optimized
from willfit.engines.llama_cpp.graph.tensor import AMX, Buffer, Node

#: No limit to one allocation.
ENDLESS = 2**62


@dataclass(frozen=True, slots=True)
class Processor:
    """Computes everything that lies on the host.

    Attributes
    ----------
    place
        Where its results are: `CPU`, or pinned buffers of the first device, such as `CUDA_Host`.
    alignment, largest_buffer
        Of that buffer.
    sees_devices
        It reads what lies on devices, too.
    plans_all
        Everything is planned as if it computed and read it, as builds without a scheduler do.
    """

    place: str = "CPU"
    alignment: int = 32
    maps_files: bool = False
    largest_buffer: int = ENDLESS
    sees_devices: bool = False
    plans_all: bool = False

    def supports(self, node: Node) -> bool:
        """See `Backend.supports`."""
        return True

    def reads(self, buffer: Buffer) -> bool:
        """See `Backend.reads`."""
        return buffer.device is None or self.sees_devices or self.plans_all

    def takes_over(self, node: Node) -> bool:
        """See `Backend.takes_over`."""
        return False

    def optimize(self, nodes: Sequence[Node], uses: Mapping[int, int]) -> Optimized:
        """See `Backend.optimize`."""
        return Optimized(nodes)

    def bytes(self, node: Node) -> int:
        """See `Backend.bytes`."""
        if node.buffer is not None and node.buffer.place == AMX:
            return amx_bytes(node)
        return node.bytes
