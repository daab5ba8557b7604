"""`GradScaler`: gradients of fake tensors are finite, so that no step is left out."""

from __future__ import annotations

from typing import Any

import torch


def gradients_are_finite() -> None:
    """Take each step: the scaler looks at a number that says whether one is not (torch/amp/grad_scaler.py)."""

    def step(self: Any, optimizer: Any, state: object, *args: Any, **named: Any) -> Any:
        return optimizer.step(*args, **named)

    torch.amp.GradScaler._maybe_opt_step = step
