"""Optimizers by the names of `OptimizerSettings`, each as torch or transformers makes it."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from willfit.errors import BadInput
from willfit.training.settings import OptimizerSettings

#: Learning rates and the like do not change what is allocated.
RATE = 1e-4


def made(settings: OptimizerSettings, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that a run names.

    Raises
    ------
    BadInput
        If it is not known here.
    """
    name, how = settings.name or "adamw", settings.implementation or "foreach"
    # Never None: torch would take a loop for fake tensors, whose type is not that of tensors.
    ways = {"foreach": how == "foreach", "fused": how == "fused"}
    if name in ("adamw", "adam"):
        kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
        return kind(parameters, RATE, **ways)
    if name == "sgd":
        return torch.optim.SGD(parameters, RATE, momentum=0.9 if settings.momentum else 0.0, **ways)
    if name in ("adagrad", "rmsprop"):
        ways = {"foreach": how == "foreach"}
        return {"adagrad": torch.optim.Adagrad, "rmsprop": torch.optim.RMSprop}[name](
            parameters, RATE, **ways
        )
    if name == "adafactor":
        from transformers import Adafactor

        return Adafactor(parameters, RATE, scale_parameter=False, relative_step=False)
    if name == "lion":
        return Lion(parameters, RATE)
    raise BadInput(
        f"the optimizer {name!r} is not traced", "adamw, adam, sgd, adagrad, rmsprop, adafactor and lion are"
    )


class Lion(torch.optim.Optimizer):
    """Lion as its authors' PyTorch code does it: one moment, an update made from it and the gradient."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        """Take a step."""
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
