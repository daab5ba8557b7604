"""What layers with packed matrices have in common: the arrays that a checkpoint has of them, as buffers."""

from __future__ import annotations

from typing import Any

import torch

from willfit.formats.base import Format
from willfit.tracing.worker.dtypes import DTYPES

_STORED = {**DTYPES, "int32": torch.int32, "int16": torch.int16, "uint8": torch.uint8}


class PackedLinear(torch.nn.Module):
    """A linear layer without a weight.

    Parameters
    ----------
    inputs, outputs
        Of the layer.
    bias
        Whether it has one.
    stored
        The format of its matrix.
    dtype
        Of a bias, and what a format leaves open.
    device
        Where it is made.
    """

    bias: Any

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias: bool,
        stored: Format,
        dtype: torch.dtype,
        device: torch.device | str = "meta",
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.stored = inputs, outputs, stored
        for piece in stored.pieces((outputs, inputs)):
            self.held(piece.suffix, piece.shape, _STORED[piece.dtype], device)
        self.bias = None
        if bias:
            del self.bias
            self.held("bias", (outputs,), dtype, device)

    def held(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> None:
        """Add a buffer."""
        self.register_buffer(name, torch.empty(shape, dtype=dtype, device=device))

    def flat(self, rows: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
        """Rows of all sequences, and the shape of their product."""
        return rows.reshape(-1, rows.shape[-1]), (*rows.shape[:-1], self.out_features)


class QuantLinear(PackedLinear):
    """A layer in GPTQ or AWQ, which peft knows as GPTQModel's `BaseQuantLinear`."""
