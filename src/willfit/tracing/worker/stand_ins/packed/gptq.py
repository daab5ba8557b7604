"""GPTQ's layers as they train: GPTQModel's, auto_gptq's for CUDA, and fms-acceleration's for Triton."""

from __future__ import annotations

from typing import Any

import torch

from willfit.errors import BadInput
from willfit.formats.gptq import Gptq
from willfit.tracing.worker.stand_ins.buffers import buffer
from willfit.tracing.worker.stand_ins.packed.layers import QuantLinear

#: Bits of a word.
WORD = 32
#: auto_gptq's kernel multiplies fewer rows than this without unpacking (`kernel_switch_threshold`).
FEW_ROWS = 128
#: Shifts of a 3-bit word's parts (`wf`: 3 words of 12).
_SHIFTS_OF_3_BITS = 36


class _Gptq(QuantLinear):
    """With what shifts are read from (`wf_unsqueeze_zero`, `wf`)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias: bool,
        stored: Gptq,
        dtype: torch.dtype,
        device: torch.device | str = "meta",
    ) -> None:
        del dtype  # a bias is float16, as scales are
        super().__init__(inputs, outputs, bias, stored, torch.float16, device)
        self.bits = stored.bits
        self.group = inputs if stored.group <= 0 else stored.group


class GptqModelLinear(_Gptq):
    """GPTQModel: `TritonV2Linear`, which is `TorchLinear` while it trains. Its `dequantize_weight` is compiled."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        count = _SHIFTS_OF_3_BITS if self.bits == 3 else WORD // self.bits
        self.held("shifts", (count,), torch.int32, self.qweight.device)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """`_forward_eager`; where nothing trains a kernel reads the packed matrix (`MarlinLinear`, `MacheteLinear`)."""
        flat, shape = self.flat(rows)
        if not self.training:
            found = buffer("gptq_gemm", flat, (len(flat), self.out_features), flat.dtype)
        else:
            whole = buffer(
                "dequantize_weight", flat, (self.in_features, self.out_features), self.scales.dtype
            )
            whole = whole.to(flat.dtype)
            found = torch.matmul(flat, whole)
        found = found.reshape(shape)
        if self.bias is not None:
            found.add_(self.bias.to(found.dtype))
        return found


class AutoGptqLinear(_Gptq):
    """auto_gptq's `cuda-old` layer, which transformers took where exllama was off (0.5 to 0.7)."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        if self.bits == 3:
            raise BadInput("auto_gptq's layers of 3 bits are not traced", "gptqmodel's are")
        self.held("shifts", (WORD // self.bits,), torch.int32, self.qweight.device)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Unpack by shifts and multiply; few rows by a kernel, through which no gradient passes."""
        flat, shape = self.flat(rows)
        if len(flat) < FEW_ROWS and not flat.requires_grad:
            found = torch.zeros(len(flat), self.out_features, dtype=torch.float32, device=flat.device)
            buffer("scales", self.scales, self.scales.shape, torch.float32)
        else:
            _zeros, whole = self._unpacked()  # both are alive until the layer returns
            found = torch.matmul(flat, whole)
        found = found.to(rows.dtype).reshape(shape)
        return found if self.bias is None else found + self.bias

    def _unpacked(self) -> tuple[torch.Tensor, torch.Tensor]:
        narrow = torch.int16 if self.bits == 8 else torch.int8
        most, parts = 2**self.bits - 1, WORD // self.bits
        zeros = torch.bitwise_right_shift(
            self.qzeros.unsqueeze(2).expand(-1, -1, parts), self.shifts.view(1, 1, -1)
        ).to(narrow)
        zeros = zeros + 1
        zeros = torch.bitwise_and(zeros, most)
        zeros = zeros.reshape(-1, 1, self.out_features)
        scales = self.scales.reshape(-1, 1, self.out_features)
        weight = torch.bitwise_right_shift(
            self.qweight.unsqueeze(1).expand(-1, parts, -1), self.shifts.view(1, -1, 1)
        ).to(narrow)
        weight = torch.bitwise_and(weight, most)
        weight = weight.reshape(-1, self.group, self.out_features)
        weight = scales * (weight - zeros)
        return zeros, weight.reshape(-1, self.out_features)


class FmsLinear(_Gptq):
    """fms-acceleration's layer for Triton, and auto_gptq's second one."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Unpack and multiply in one function; the output is float16."""
        flat, shape = self.flat(rows)
        found = UnpackedProduct.apply(flat, self).half().reshape(shape)
        return found if self.bias is None else found + self.bias

    def unpacked(self) -> torch.Tensor:
        """`dequant248`: always in float16."""
        return buffer("dequant248", self.qweight, (self.in_features, self.out_features), torch.float16)


class UnpackedProduct(torch.autograd.Function):
    """A product that unpacks its matrix, and unpacks it again for the gradient."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda")
    def forward(ctx, rows, module):  # type: ignore[no-untyped-def]
        """Multiply."""
        ctx.module = module
        return rows @ module.unpacked()

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """The gradient of the rows."""
        return (gradient @ ctx.module.unpacked().t() if ctx.needs_input_grad[0] else None), None
