"""States of bitsandbytes' optimizers; their kernels need nothing beside.

bitsandbytes: optim/optimizer.py: Optimizer2State, Optimizer1State, get_state_buffer; optim/ademamix.py (0.44 to 0.50).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

#: Elements of a block that share a scale.
BLOCK = 256
#: Tensors with fewer elements keep float32 states (`min_8bit_size`); with fewer, they are not paged.
LEAST, LEAST_PAGED = 4096, 100_000
#: Entries of a map from codes to values.
ENTRIES = 256
#: Moments of each update: how many the first state holds, and whether there is a second one.
UPDATES = {
    "adam": (1, True), "ademamix": (2, True), "lamb": (1, True),
    "lion": (1, False), "rmsprop": (1, False), "sgd": (1, False), "adagrad": (1, False), "lars": (1, False),
}  # fmt: skip
#: Updates that are bounded by the size of the parameter (`max_unorm`; optim/lamb.py, optim/lars.py).
BOUNDED = ("lamb", "lars")


@dataclass(frozen=True, slots=True)
class Paged:
    """A state in unified memory, which torch's allocator knows nothing of."""

    nbytes: int


class BitsAndBytes(torch.optim.Optimizer):
    """An optimizer of the package.

    Parameters
    ----------
    parameters
        What is trained.
    options
        `update`, `optim_bits`, `paged`, `min_8bit_size`, by the package's names.
    wide
        Parameters that keep float32 states, by their `id`: embeddings, as the Trainer asks for.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], options: Mapping[str, Any], wide: Collection[int] = ()
    ) -> None:
        super().__init__(parameters, {})
        self.first, self.second = UPDATES[str(options.get("update", "adam"))]
        self.bits, self.paged = int(options.get("optim_bits", 8)), bool(options.get("paged", False))
        self.least = int(options.get("min_8bit_size", LEAST))
        self.bounded = options.get("update") in BOUNDED
        self.wide = frozenset(wide)
        self.maps: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Make states where there are none; the update is in place."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if not self.state[parameter]:
                    self._begin(parameter)
                parameter.data = parameter.data.contiguous()
                parameter.grad = parameter.grad.contiguous()
                if self.bounded:
                    torch.norm(parameter.data.float())

    def _begin(self, parameter: torch.nn.Parameter) -> None:
        state = self.state[parameter]
        narrow = self.bits == 8 and parameter.numel() >= self.least and id(parameter) not in self.wide
        dtype = torch.uint8 if narrow else torch.float32
        blocks = -(-parameter.numel() // BLOCK)
        for number, times in enumerate((self.first, 1)[: 1 + self.second], 1):
            state[f"state{number}"] = self._buffer(parameter, dtype, times)
            if narrow:
                state[f"qmap{number}"] = self._map(f"qmap{number}", parameter)
        if narrow:
            for number, times in enumerate((self.first, 1)[: 1 + self.second], 1):
                shape = (blocks,) if times == 1 else (times, blocks)
                state[f"absmax{number}"] = torch.zeros(shape, dtype=torch.float32, device=parameter.device)
        if self.bounded:
            state["unorm_vec"] = torch.zeros((1,), device=parameter.device)

    def _buffer(self, parameter: torch.nn.Parameter, dtype: torch.dtype, times: int) -> torch.Tensor | Paged:
        shape = tuple(parameter.shape) if times == 1 else (times, *parameter.shape)
        if self.paged and parameter.numel() >= LEAST_PAGED:
            return Paged(prod(shape) * dtype.itemsize)
        if times > 1:
            return torch.zeros(shape, dtype=dtype, device=parameter.device)
        return torch.zeros_like(parameter, dtype=dtype)

    def _map(self, name: str, parameter: torch.nn.Parameter) -> torch.Tensor:
        """The map of a state, which all parameters share."""
        if name not in self.maps:
            self.maps[name] = torch.empty(ENTRIES, dtype=torch.float32, device=parameter.device)
        return self.maps[name]

    def notes(self) -> list[str]:
        """What a trace of the device does not show."""
        paged = sum(
            value.nbytes
            for state in self.state.values()
            for value in state.values()
            if isinstance(value, Paged)
        )
        if not paged:
            return []
        return [
            f"{paged} bytes of optimizer states are in unified memory: on the device until it is full, in no counter"
            " of torch"
        ]
