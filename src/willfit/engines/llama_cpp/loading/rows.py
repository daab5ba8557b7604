"""Matrices whose rows are divided among devices: `--split-mode row` (`ggml-cuda.cu: get_row_split`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from willfit.checkpoints.gguf import GgufTensor
from willfit.engines.llama_cpp.backends.cuda import ROW_PADDING, Cuda
from willfit.engines.llama_cpp.graph.tensor import row_bytes

#: Rows come in multiples of this, and on devices without tensor cores (`get_mmq_y_host`).
_ROUNDING, _OLD_ROUNDING = 128, 64
_VOLTA = 70


@dataclass(frozen=True, slots=True)
class RowSplit:
    """How rows are divided.

    Attributes
    ----------
    starts
        Where each device's share begins, from 0 to 1.
    rounding
        Shares begin at multiples of this.
    name
        Of the devices: `CUDA`.
    main
        The one device that computes; None where each layer has its own.
    """

    starts: tuple[float, ...]
    rounding: int
    name: str
    main: int | None

    def place(self, device: int) -> str:
        """Name of the buffer of matrices that a device computes with."""
        return f"{self.name}_Split" if self.main is not None else f"{self.name}{device}_Split"

    def rows(self, count: int) -> tuple[int, ...]:
        """Rows of each device."""
        edges = [int(count * start) for start in self.starts]
        edges = [0, *(edge - edge % self.rounding for edge in edges[1:]), count]
        return tuple(end - start for start, end in pairwise(edges))

    def bytes(self, tensor: GgufTensor) -> tuple[int, ...]:
        """Bytes of a matrix on each device: its rows, the last one padded."""
        width, count = tensor.ne[0], tensor.ne[1]
        padding = row_bytes(tensor.type, ROW_PADDING - width % ROW_PADDING) if width % ROW_PADDING else 0
        each = row_bytes(tensor.type, width)
        return tuple(rows * each + padding if rows else 0 for rows in self.rows(count))

    def divides(self, tensor: GgufTensor, op: str, device: int) -> bool:
        """Whether a tensor is divided: matrices of which the device that computes has some rows."""
        if op != "mul_mat" or len([n for n in tensor.ne[2:] if n > 1]) or len(tensor.ne) < 2:
            return False
        return self.rows(tensor.ne[1])[device] > 0


def row_split(shares: Sequence[float], devices: Sequence[Cuda], main: int | None) -> RowSplit:
    """Divide rows by shares of devices; see `RowSplit`."""
    total = sum(shares)
    starts = tuple(end / total - share / total for share, end in zip(shares, accumulate(shares), strict=True))
    edges = (*starts, 1.0)
    used = [one for one, start, end in zip(devices, edges, edges[1:], strict=False) if end > start]
    return RowSplit(starts, max(map(_rounding, used)), devices[0].name, main)


def _rounding(device: Cuda) -> int:
    if isinstance(device.arch, int):
        return _ROUNDING if device.arch >= _VOLTA else _OLD_ROUNDING
    return _OLD_ROUNDING if device.arch.startswith("gfx101") else _ROUNDING
