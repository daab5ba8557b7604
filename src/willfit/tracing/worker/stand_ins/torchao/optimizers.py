"""States of torchao's Adam in 8 or 4 bits, or in float8.

torchao: optim/adam.py: _AdamBase._new_buffer; optim/subclass_8bit.py, subclass_4bit.py, subclass_fp8.py (0.18.0).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

#: Tensors with fewer elements, or which blocks do not divide, keep states of their own dtype.
LEAST = 4096
#: Elements that share a scale.
BLOCKS = {"8": 256, "4": 128, "fp8": 256}
#: Entries of a state's map from codes to values.
ENTRIES = {"8": 256, "4": 16}
MOMENTS = ("exp_avg", "exp_avg_sq")


class LowBitAdam(torch.optim.Optimizer):
    """Adam or AdamW.

    Parameters
    ----------
    bits
        `8`, `4` or `fp8`.
    block
        Elements that share a scale; None for the class's own.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], bits: str, block: int | None = None) -> None:
        super().__init__(parameters, {})
        self.bits, self.block = bits, block or BLOCKS[bits]

    @torch.no_grad()
    def step(self) -> None:
        """Make states where there are none; the update is one compiled function for each parameter."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and not self.state[parameter]:
                    for moment in MOMENTS:
                        self._begin(parameter, moment)

    def _begin(self, parameter: torch.nn.Parameter, moment: str) -> None:
        state, device, elements = self.state[parameter], parameter.device, parameter.numel()
        if elements < LEAST or elements % self.block:
            state[moment] = torch.zeros_like(parameter)
            return
        shape = (elements // 2,) if self.bits == "4" else tuple(parameter.shape)
        codes = torch.float8_e4m3fn if self.bits == "fp8" else torch.uint8
        state[moment] = torch.zeros(shape, dtype=codes, device=device)
        state[f"{moment}.scale"] = torch.zeros(elements // self.block, device=device)
        if self.bits in ENTRIES:
            state[f"{moment}.qmap"] = torch.empty(ENTRIES[self.bits], dtype=torch.float32, device=device)

    def notes(self) -> list[str]:
        """What a trace does not show."""
        return [
            "torchao's step is compiled: what its kernels write out between them is not traced, at most three float32"
            " copies of the largest parameter"
        ]
