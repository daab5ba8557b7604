"""`Linear4bit`: a packed matrix, its constants, and products that unpack it.

bitsandbytes: functional.py: quantize_4bit, dequantize_4bit; autograd/_functions.py: MatMul4Bit, matmul_4bit;
nn/modules.py: Linear4bit; backends/cuda/ops.py: gemm_4bit (0.50.2), and the same in 0.41 to 0.49.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.nn import functional

from willfit.tracing.worker.stand_ins.bitsandbytes.choice import Product, reads_packed
from willfit.tracing.worker.stand_ins.buffers import buffer, on_card

#: Elements that share a constant (`Params4bit.__new__`), and constants that share one in turn (`quantize_4bit`).
BLOCK, NESTED_BLOCK = 64, 256
#: Values of a 4-bit type (`get_4bit_type`), and of the 8-bit map of nested constants (`create_dynamic_map`).
VALUES, NESTED_VALUES = 16, 256
#: Bits of a weight.
BITS = 4


class QuantState:
    """What is needed to unpack a module's matrix; its tensors are the module's buffers."""

    def __init__(self, module: Linear4bit, dtype: torch.dtype) -> None:
        self.module, self.dtype = module, dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Of the matrix."""
        return self.module.out_features, self.module.in_features

    @property
    def nested(self) -> bool:
        """Constants are quantized too."""
        return self.module.nested_absmax is not None

    def constants(self) -> torch.Tensor:
        """In float32."""
        absmax: torch.Tensor = self.module.absmax
        if not self.nested:
            return absmax
        unpacked = buffer("dequantize_blockwise", absmax, absmax.shape, torch.float32)
        return unpacked.add_(self.module.offset)


class Params4bit(torch.nn.Parameter):
    """The packed matrix, with what peft asks of it."""

    quant_state: QuantState
    compress_statistics: bool
    quant_type: str

    def __deepcopy__(self, memo: dict[int, Any]) -> Params4bit:
        """peft copies layers to unpack them."""
        made = super().__deepcopy__(memo)
        made.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return made

    def placed(self, packed: torch.Tensor) -> torch.nn.Parameter:
        """Another tensor in its place, under this class's name: peft asks for it."""
        made = torch.nn.Parameter(packed, False)
        made.__class__ = type("Params4bit", (type(made),), {})
        made.__dict__.update(self.__dict__)
        return made


class Linear4bit(torch.nn.Linear):
    """A linear layer whose matrix is packed.

    Parameters
    ----------
    compute_dtype
        Of its products; None for that of its first input.
    compress_statistics
        Constants are quantized too.
    quant_type
        `nf4` or `fp4`, which are as large.
    quant_storage
        Dtype of what packs the bits.
    dtype
        Of the matrix before it was packed.
    device
        Where it is made.
    keeps_input
        Products keep their input for the backward pass (before 0.43.2).
    unpacks
        Products of more than a row always unpack (before 0.50).
    """

    weight: Any
    bias: Any
    offset: Any

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        compute_dtype: torch.dtype | None = None,
        compress_statistics: bool = True,
        quant_type: str = "nf4",
        quant_storage: torch.dtype = torch.uint8,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        keeps_input: bool = False,
        unpacks: bool = False,
    ) -> None:
        with torch.device("meta"):
            super().__init__(in_features, out_features, bias, dtype=dtype)
        if self.bias is not None:
            self.bias = torch.nn.Parameter(torch.empty_like(self.bias, device=device), False)
        state = QuantState(self, self.weight.dtype)
        elements = in_features * out_features
        packed = (elements + 1) // (2 * quant_storage.itemsize)
        self.weight = Params4bit(torch.empty(packed, 1, dtype=quant_storage, device=device), False)
        self.weight.quant_state = state
        self.weight.compress_statistics, self.weight.quant_type = compress_statistics, quant_type
        self.compute_dtype = compute_dtype
        self.keeps_input, self.unpacks = keeps_input, unpacks
        blocks = -(-elements // BLOCK)
        constants = torch.uint8 if compress_statistics else torch.float32
        self._held("absmax", (blocks,), constants, device)
        self._held("quant_map", (VALUES,), torch.float32, device)
        if not compress_statistics:
            self.nested_absmax = self.nested_quant_map = self.offset = None
        else:
            self._held("nested_absmax", (-(-blocks // NESTED_BLOCK),), torch.float32, device)
            self._held("nested_quant_map", (NESTED_VALUES,), torch.float32, device)
            self._held("offset", (), torch.float32, device)

    def _held(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: Any) -> None:
        self.register_buffer(name, torch.empty(shape, dtype=dtype, device=device), persistent=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`Linear4bit.forward`: the input in the compute dtype, the output in the input's."""
        if self.compute_dtype is None:
            self.compute_dtype = input.dtype
        rows = input.to(self.compute_dtype)
        bias = None if self.bias is None else self.bias.to(rows.dtype)
        state = self.weight.quant_state
        differentiates = torch.is_grad_enabled() and (
            rows.requires_grad or (bias is not None and bias.requires_grad)
        )
        if self.unpacks and rows.numel() == rows.shape[-1] and not rows.requires_grad:
            found = buffer("gemv_4bit", rows, (*rows.shape[:-1], self.out_features), rows.dtype)
            if bias is not None:
                found += bias
        elif differentiates or self.unpacks:
            found = MatMul4Bit.apply(rows, self.weight, bias, state, self.keeps_input, self.unpacks)
        else:
            found = gemm_4bit(rows, self.weight, bias, state)
        return found.to(input.dtype)


class MatMul4Bit(torch.autograd.Function):
    """A product with the unpacked matrix, which is unpacked again for the gradient."""

    @staticmethod
    def forward(ctx, rows, packed, bias, state, keeps_input, unpacks):  # type: ignore[no-untyped-def]
        """Multiply."""
        if unpacks:
            whole = dequantize_4bit(packed, state).to(rows.dtype)
            output = functional.linear(rows, whole, bias)
        else:
            output = gemm_4bit(rows, packed, bias, state)
        ctx.state, ctx.bias_dtype = state, None if bias is None else bias.dtype
        ctx.tensors = (
            (rows if keeps_input else None, packed) if any(ctx.needs_input_grad[:2]) else (None, None)
        )
        return output

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """Gradients of rows and bias."""
        of_bias = gradient.sum(0, dtype=ctx.bias_dtype) if ctx.needs_input_grad[2] else None
        of_rows = None
        if ctx.needs_input_grad[0]:
            of_rows = torch.matmul(gradient, dequantize_4bit(ctx.tensors[1], ctx.state).to(gradient.dtype))
        return of_rows, None, of_bias, None, None, None


def gemm_4bit(
    rows: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None, state: QuantState
) -> torch.Tensor:
    """`gemm_4bit` on CUDA: by a kernel for packed weights, or unpacked in the rows' dtype."""
    outputs, inputs = state.shape
    if on_card(rows):
        properties = torch.cuda.get_device_properties(rows.device)
        asked = Product(rows.numel() // inputs, outputs, inputs, properties.multi_processor_count)
        if reads_packed(asked, torch.cuda.get_device_capability(rows.device), rows.dtype, BLOCK):
            if state.nested:
                state.module.offset.to(torch.float32)
            return buffer("gemm_4bit", rows.contiguous(), (*rows.shape[:-1], outputs), rows.dtype)
    # `_dequant_linear_fallback`
    constants = state.module.absmax
    if state.nested:
        unpacked = buffer("dequantize_blockwise", constants, constants.shape, torch.float32)
        constants = unpacked + state.module.offset
    whole = buffer("dequantize_4bit", packed, state.shape, rows.dtype)
    return functional.linear(rows, whole, bias)


def dequantize_4bit(packed: torch.Tensor, quant_state: QuantState) -> torch.Tensor:
    """The matrix in the dtype that it was loaded in."""
    constants = quant_state.constants()
    whole = buffer("dequantize_4bit", packed, quant_state.shape, quant_state.dtype)
    del constants
    return whole
