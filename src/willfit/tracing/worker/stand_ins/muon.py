"""Muon as its authors' code and trainers' copies of it do it: a moment for matrices, made orthogonal; Adam for the rest.

Moonlight examples/toy_train.py: Muon.step; muon-optimizer muon.py: muon_update (0.1.0).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch

#: Iterations, and their polynomial's factors.
ITERATIONS, FACTORS = 5, (3.4445, -4.7750, 2.0315)
#: Decays of the moments.
MOMENTUM, BETAS, EPSILON = 0.95, (0.9, 0.95), 1e-8


class Muon(torch.optim.Optimizer):
    """One class for both.

    Parameters
    ----------
    hidden
        Parameters that are made orthogonal, by their `id`.
    corrected
        Adam's moments are divided by what corrects their start, one after the other (the author's).
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], lr: float, hidden: Collection[int], corrected: bool
    ) -> None:
        super().__init__(parameters, {"lr": lr})
        self.hidden, self.corrected = frozenset(hidden), corrected

    @torch.no_grad()
    def step(self) -> None:
        """Take a step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                one = self._orthogonal if id(parameter) in self.hidden else self._adam
                update = one(parameter)
                parameter.mul_(1.0)
                parameter.add_(update, alpha=-group["lr"])

    def _orthogonal(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        moment = state["momentum_buffer"]
        if self.corrected:
            moment.lerp_(gradient, 1 - MOMENTUM)
            update = gradient.lerp_(moment, MOMENTUM)
        else:
            moment.mul_(MOMENTUM).add_(gradient)
            update = gradient.add(moment, alpha=MOMENTUM)
        return orthogonal(update)

    def _adam(self, parameter: torch.nn.Parameter) -> torch.Tensor:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        first, second = state["exp_avg"], state["exp_avg_sq"]
        first.lerp_(gradient, 1 - BETAS[0])
        second.lerp_(gradient.square(), 1 - BETAS[1])
        if not self.corrected:
            return first / (EPSILON + second.sqrt())
        one, two = first / (1 - BETAS[0]), second / (1 - BETAS[1])
        return one / (two.sqrt() + EPSILON)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Newton and Schulz's iteration in bfloat16."""
    a, b, c = FACTORS
    found = matrix.bfloat16()
    tall = matrix.size(-2) > matrix.size(-1)
    if tall:
        found = found.mT
    found = found / (found.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = found @ found.mT
        polynomial = b * gram + c * gram @ gram
        found = a * found + polynomial @ found
    return found.mT if tall else found
