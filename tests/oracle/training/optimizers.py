"""Optimizers by the names of `OptimizerSettings`, each as PyTorch or transformers makes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

#: Learning rates and the like do not change what is allocated.
RATE = 1e-4


def make(settings: dict[str, Any], parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that a scenario names."""
    name, how = settings.get("name", "adamw"), settings.get("implementation", "foreach")
    ways = {"foreach": how == "foreach", "fused": how == "fused"}  # never None: fake tensors would get a loop
    if name == "adamw":
        return torch.optim.AdamW(parameters, RATE, **ways)
    if name == "sgd":
        return torch.optim.SGD(parameters, RATE, momentum=0.9 if settings.get("momentum") else 0.0, **ways)
    if name == "adafactor":
        from transformers import Adafactor

        return Adafactor(parameters, RATE, scale_parameter=False, relative_step=False)
    if name == "lion":
        return Lion(parameters, RATE)
    raise ValueError(f"no optimizer {name}")


class Lion(torch.optim.Optimizer):
    """Lion as its authors' PyTorch code does it: one moment, an update made from it and the gradient."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                moment = state["exp_avg"]
                update = moment * 0.9 + parameter.grad * 0.1
                parameter.add_(update.sign_(), alpha=-group["lr"])
                moment.mul_(0.99).add_(parameter.grad, alpha=0.01)
