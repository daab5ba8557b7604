"""`Linear8bitLt` with an int8 matrix: products in integers, gradients by a matrix in the rows' dtype.

bitsandbytes: autograd/_functions.py: MatMul8bitLt; backends/cuda/ops.py: int8_vectorwise_quant, int8_linear_matmul,
int8_mm_dequant; backends/default/ops.py: int8_mixed_scaled_mm; nn/modules.py: Linear8bitLt (0.50.2).
"""

from __future__ import annotations

from typing import Any

import torch

from willfit.tracing.worker.stand_ins.buffers import buffer

#: Columns of an input in which some value is above the threshold. They depend on values and are few: none are assumed.
OUTLIERS = 0
#: cuBLASLt multiplies rows of int8 whose length is a multiple of this; others go through float32.
ALIGNED = 4
#: The largest int8.
LARGEST = 127.0


class MatmulLtState:
    """A module's matrix and the constants of its rows, under the names that peft reads."""

    def __init__(self, module: Linear8bitLt, threshold: float) -> None:
        self.module, self.threshold, self.has_fp16_weights = module, threshold, False

    @property
    def CB(self) -> torch.Tensor:
        """The matrix."""
        return self.module.weight

    @property
    def SCB(self) -> torch.Tensor:
        """The largest value of each row."""
        return self.module.row_constants


class Int8Params(torch.nn.Parameter):
    """The int8 matrix."""

    def placed(self, matrix: torch.Tensor) -> torch.nn.Parameter:
        """Another tensor in its place, under this class's name: peft asks for it."""
        made = torch.nn.Parameter(matrix, False)
        made.__class__ = type("Int8Params", (type(made),), {})
        return made


class Linear8bitLt(torch.nn.Linear):
    """A linear layer whose matrix is int8 (`has_fp16_weights=False`).

    Parameters
    ----------
    threshold
        Columns with larger values are multiplied in the rows' dtype; 0 for none.
    device
        Where it is made.
    """

    weight: Any
    bias: Any

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        threshold: float = 0.0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        with torch.device("meta"):
            super().__init__(in_features, out_features, bias, dtype=dtype)
        if self.bias is not None:
            self.bias = torch.nn.Parameter(torch.empty_like(self.bias, device=device), False)
        matrix = torch.empty(out_features, in_features, dtype=torch.int8, device=device)
        self.weight = Int8Params(matrix, False)
        constants = torch.empty(out_features, dtype=torch.float32, device=device)
        self.register_buffer("row_constants", constants, persistent=False)
        self.state = MatmulLtState(self, threshold)
        self.index = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        if self.bias is not None and self.bias.dtype != input.dtype:
            self.bias.data = self.bias.data.to(input.dtype)
        return MatMul8bitLt.apply(input, self.weight, self.bias, self.state)


class MatMul8bitLt(torch.autograd.Function):
    """An integer product, which keeps its input, though no gradient reads it."""

    @staticmethod
    def forward(ctx, rows, matrix, bias, state):  # type: ignore[no-untyped-def]
        """Multiply."""
        shape = rows.shape
        if rows.dim() == 3:
            rows = rows.reshape(-1, shape[-1])
        narrow, scales, columns = _quantized(rows.to(torch.float16), state.threshold)
        outliers = None
        if state.threshold > 0.0:
            outliers = buffer("outliers", rows, (OUTLIERS,), rows.dtype)
        product = _dequantized(_multiplied(narrow, matrix), bias, rows.dtype)
        ctx.state, ctx.shape, ctx.dtype = state, shape, rows.dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        kept = any(ctx.needs_input_grad[:2])
        ctx.tensors = (outliers, rows, columns) if kept else ()
        del narrow, scales
        return product.reshape(*shape[:-1], matrix.shape[0]) if len(shape) == 3 else product

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """Gradients of rows and bias."""
        of_bias = gradient.sum(0, dtype=ctx.bias_dtype) if ctx.needs_input_grad[2] else None
        if gradient.dim() == 3:
            gradient = gradient.reshape(-1, gradient.shape[-1]).contiguous()
        of_rows = None
        if ctx.needs_input_grad[0]:
            state = ctx.state
            whole = state.CB.to(ctx.dtype, copy=True).mul_(state.SCB.unsqueeze(1).mul(1.0 / LARGEST))
            of_rows = torch.matmul(gradient.to(ctx.dtype), whole).view(ctx.shape)
        return of_rows, None, of_bias, None


def _quantized(
    rows: torch.Tensor, threshold: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """`int8_vectorwise_quant`: rows as int8, what each row is scaled by, and the columns left out."""
    count = rows.numel() // rows.shape[-1]
    scales = buffer("int8_vectorwise_quant", rows, (count,), torch.float32)
    narrow = buffer("int8_vectorwise_quant", rows, rows.shape, torch.int8)
    columns = None
    if threshold > 0.0:
        large = rows.abs() >= threshold
        large.any()
        columns = buffer("outliers", rows, (OUTLIERS,), torch.int64)
        del large
    return narrow, scales, columns


def _multiplied(narrow: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """`int8_linear_matmul`: in int32."""
    product = buffer("int8_linear_matmul", narrow, (*narrow.shape[:-1], matrix.shape[0]), torch.int32)
    if narrow.shape[-1] % ALIGNED:
        product.copy_(torch.matmul(narrow.float(), matrix.float().t()).to(torch.int32))
    return product


def _dequantized(product: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """`int8_mm_dequant`: in float16, then in the rows' dtype; a float16 bias is added on the way."""
    found = buffer("int8_mm_dequant", product, product.shape, torch.float16)
    if bias is not None and bias.dtype is not torch.float16:
        found.add_(bias)
    return found.to(dtype)


def dequantize_8bit(matrix: torch.Tensor, constants: torch.Tensor) -> torch.Tensor:
    """`int8_vectorwise_dequant` (_ops.py): in float32, by two products."""
    return matrix * constants.view(-1, 1) * (1.0 / LARGEST)
