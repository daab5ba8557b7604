"""AWQ's layers: AutoAWQ's `WQLinear_GEMM` and GPTQModel's `AwqGEMMLinear`, which keep their input."""

from __future__ import annotations

from contextlib import nullcontext
from enum import Enum
from typing import Any, ClassVar

import torch

from willfit.tracing.worker.stand_ins.buffers import buffer
from willfit.tracing.worker.stand_ins.packed.layers import QuantLinear

#: As many rows are multiplied with an unpacked matrix (AutoAWQ from, GPTQModel after that many); fewer by a kernel that
#: makes this many partial sums.
MANY_ROWS, PARTS = 1024, 8


class _Method(Enum):
    """peft asks layers for the value of what they support (utils/other.py: is_gptqmodel_awq_layer)."""

    AWQ = "awq"


class AwqLinear(QuantLinear):
    """GPTQModel's layer: it computes in the dtype of 16-bit rows, and has scales of that dtype."""

    SUPPORTS_METHODS: ClassVar[list[_Method]] = [_Method.AWQ]
    scales: Any
    #: The one dtype that it computes in; None for any of 16 bits.
    computes: torch.dtype | None = None
    many = MANY_ROWS + 1

    def __init__(
        self, inputs: int, outputs: int, bias: bool, stored: Any, dtype: torch.dtype, device: Any = "meta"
    ) -> None:
        narrow = dtype if dtype.itemsize == 2 and self.computes is None else torch.float16
        super().__init__(inputs, outputs, bias, stored, narrow, device)
        self.scales = self.scales.to(narrow)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """`AwqGEMMLinear.forward`, `WQLinear_GEMM.forward`."""
        given = rows.dtype
        wanted = self.computes or (given if given.itemsize == 2 else torch.float16)
        rows = rows.to(wanted)
        with nullcontext() if self.training else torch.no_grad():
            found = AwqProduct.apply(rows, self.qweight, self.qzeros, self.scales, self.bias, self)
        return found.to(given).reshape(*rows.shape[:-1], self.out_features)

    def unpacked(self) -> torch.Tensor:
        """`awq_dequantize_weights`: in the dtype of scales."""
        shape = (self.in_features, self.out_features)
        return buffer("awq_dequantize_weights", self.qweight, shape, self.scales.dtype)


class AutoAwqLinear(AwqLinear):
    """AutoAWQ's layer: all in float16."""

    computes = torch.float16
    many = MANY_ROWS


class AwqProduct(torch.autograd.Function):
    """A product that keeps its input, though no gradient reads it."""

    @staticmethod
    def forward(ctx, rows, packed, zeros, scales, bias, module):  # type: ignore[no-untyped-def]
        """Multiply."""
        ctx.save_for_backward(rows, packed, zeros, scales, bias)
        ctx.module = module
        if rows.shape[0] * rows.shape[1] >= module.many:
            found = torch.matmul(rows, module.unpacked())
        else:
            flat = rows.reshape(-1, rows.shape[-1])
            sums = buffer("awq_gemm", flat, (PARTS, len(flat), module.out_features), flat.dtype)
            found = sums.sum(0)
        found = found + bias if bias is not None else found
        return found.reshape(*rows.shape[:-1], module.out_features)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """The gradient of the rows, by a copy of the matrix for each sequence."""
        _ = ctx.saved_tensors
        whole = ctx.module.unpacked().to(gradient.dtype)
        found = None
        if ctx.needs_input_grad[0]:
            found = gradient.bmm(whole.transpose(0, 1).unsqueeze(0).repeat(gradient.shape[0], 1, 1))
        return found, None, None, None, None, None
