"""HQQ's layer with its backend for PyTorch, which is its default: integers are unpacked by torch's operations.

hqq: core/quantize.py: HQQLinear, HQQMatmulNoCacheMul, Quantizer.dequantize; core/bitpack.py: BitPack (0.2.3 to 0.2.8).
"""

from __future__ import annotations

from typing import Any

import torch

from willfit.formats.packed import Hqq
from willfit.tracing.worker.stand_ins.packed.layers import PackedLinear

#: Integers of a packed element, by their bits: bytes, and for 3 bits words of 32.
_IN_ELEMENT = {8: 1, 4: 2, 3: 10, 2: 4, 1: 8}


class HQQLinear(PackedLinear):
    """A layer whose matrix lies in groups; peft knows it by its name, and by that of its packed matrix."""

    W_q: Any

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bias: bool,
        stored: Hqq,
        dtype: torch.dtype,
        device: torch.device | str = "meta",
    ) -> None:
        super().__init__(inputs, outputs, bias, stored, dtype, device)
        self.bits = stored.bits
        packed = self.W_q
        del self.W_q
        self.W_q = torch.nn.Parameter(packed, False)

    def forward(self, rows: torch.Tensor, *_: Any) -> torch.Tensor:
        """`forward_pytorch_backprop`."""
        return HqqProduct.apply(rows, self.bias, self)

    def unpacked(self) -> torch.Tensor:
        """`dequantize`: all three matrices are alive at its end."""
        dtype, groups = self.scale.dtype, len(self.scale)
        whole = _integers(self.W_q, self.bits, dtype)[:groups]
        return ((whole - self.zero) * self.scale).reshape(self.out_features, self.in_features)


def _integers(packed: torch.Tensor, bits: int, dtype: torch.dtype) -> torch.Tensor:
    """`BitPack.unpack_*`: a tensor of all, of which each part is masked and shifted."""
    if bits == 8:
        return packed.to(dtype)
    parts, rows = _IN_ELEMENT[bits], len(packed)
    whole = torch.empty((parts * rows, packed.shape[1]), dtype=dtype, device=packed.device)
    mask = 2**bits - 1
    for part in range(parts):
        shift = bits * (parts - 1 - part)
        masked = packed & (mask << shift)
        whole[part * rows : (part + 1) * rows] = masked >> shift if shift else masked
        del masked
    return whole


class HqqProduct(torch.autograd.Function):
    """A product that unpacks its matrix in each pass, and keeps an input that no gradient reads."""

    @staticmethod
    def forward(rows, bias, module):  # type: ignore[no-untyped-def]
        """Multiply."""
        found = torch.matmul(rows, module.unpacked().t())
        if bias is not None:
            found += bias
        return found

    @staticmethod
    def setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
        """Keep the input."""
        rows, bias, ctx.module = inputs
        ctx.save_for_backward(rows, bias)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        """The gradient of the rows."""
        _ = ctx.saved_tensors
        found = torch.matmul(gradient, ctx.module.unpacked()) if ctx.needs_input_grad[0] else None
        return found, None, None
