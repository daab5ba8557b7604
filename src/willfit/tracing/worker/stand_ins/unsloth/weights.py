"""Matrices of base layers as fused adapters read them, unpacked where they are packed.

unsloth: kernels/utils.py: fast_dequantize; fms_acceleration_foak: fused_ops/unsloth_lora/utils.py, and
gptq/triton/kernels.py: dequant248.
"""

from __future__ import annotations

from typing import Any

import torch

from willfit.errors import BadInput
from willfit.tracing.worker.stand_ins.buffers import buffer


class Shared:
    """One buffer for all matrices, and one for their constants, which stay (`WEIGHT_BUFFERS`, from 2025.3 on).

    The first matrix makes them; a larger one makes them grow.
    """

    def __init__(self) -> None:
        self._held: dict[str, torch.Tensor] = {}

    def part(
        self, kernel: str, like: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype
    ) -> torch.Tensor:
        """The first elements of a buffer."""
        count = 1
        for side in shape:
            count *= side
        held = self._held.get(kernel)
        if held is None or held.numel() < count:
            held = self._held[kernel] = buffer(kernel, like, (count,), dtype)
        return held[:count].view(shape)


def is_packed(base: Any) -> bool:
    """Whether a layer's matrix must be unpacked."""
    return hasattr(base, "unpacked") or hasattr(base.weight, "quant_state")


def unpacked(base: Any, shared: Shared | None = None) -> torch.Tensor:
    """A layer's matrix as inputs by outputs.

    Parameters
    ----------
    base
        The layer.
    shared
        Where a packed matrix is unpacked to; a new tensor if None.

    Raises
    ------
    BadInput
        If its constants are not quantized, which the function takes for granted.
    """
    if hasattr(base, "unpacked"):
        found: torch.Tensor = base.unpacked()
        return found
    state = getattr(base.weight, "quant_state", None)
    if state is None:
        transposed: torch.Tensor = base.weight.t()
        return transposed
    if not state.nested:
        raise BadInput(
            "Unsloth unpacks only matrices whose constants are quantized too", "--quantize nf4 --double-quant"
        )
    packed, absmax = base.weight, state.module.absmax
    make = buffer if shared is None else shared.part
    whole = make("dequantize_4bit", packed, tuple(state.shape), state.dtype)
    constants = make("dequantize_blockwise", absmax, tuple(absmax.shape), torch.float32)
    constants += state.module.offset
    return whole.t()
