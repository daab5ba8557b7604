"""Muon, as its authors' code and trainers' copies of it do it.

It has one moment for matrices, whose update is made orthogonal, and Adam for the rest. What names are bound to stays
until they are bound anew, also from one parameter to the next.

Moonlight examples/toy_train.py: Muon.step; muon-optimizer muon.py: SingleDeviceMuonWithAuxAdam.step, muon_update,
adam_update (0.1.0).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch

#: Iterations, and their polynomial's factors.
ITERATIONS, FACTORS = 5, (3.4445, -4.7750, 2.0315)
#: Decays of the moments.
MOMENTUM, BETAS, EPSILON = 0.95, (0.9, 0.95), 1e-8


class Moonlight(torch.optim.Optimizer):
    """One class for both, matrices first.

    Parameters
    ----------
    hidden
        Parameters that are made orthogonal, by their `id`.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float, hidden: Collection[int]) -> None:
        super().__init__(parameters, {"lr": lr})
        self.hidden = frozenset(hidden)

    @torch.no_grad()
    def step(self) -> None:
        """Take a step."""
        for group in self.param_groups:
            trained = [one for one in group["params"] if one.grad is not None]
            for parameter in (one for one in trained if id(one) in self.hidden):
                gradient, state = parameter.grad, self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(gradient)
                moment = state["momentum_buffer"]
                moment.mul_(MOMENTUM).add_(gradient)
                gradient = gradient.add(moment, alpha=MOMENTUM)
                update = orthogonal(gradient)
                parameter.mul_(1.0)
                parameter.add_(update, alpha=-group["lr"])
            for parameter in (one for one in trained if id(one) not in self.hidden):
                gradient, state = parameter.grad, self.state[parameter]
                first, second = _moments(state, gradient)
                first.lerp_(gradient, 1 - BETAS[0])
                second.lerp_(gradient.square(), 1 - BETAS[1])
                gradient = first / (EPSILON + second.sqrt())
                parameter.mul_(1.0)
                parameter.add_(gradient, alpha=-group["lr"])


class Keller(Moonlight):
    """The author's, which takes parameters in their order."""

    @torch.no_grad()
    def step(self) -> None:
        """Take a step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if id(parameter) in self.hidden:
                    if not state:
                        state["momentum_buffer"] = torch.zeros_like(parameter)
                    update = _of_matrix(parameter.grad, state["momentum_buffer"])
                else:
                    update = _of_others(parameter.grad, *_moments(state, parameter))
                parameter.mul_(1.0)
                parameter.add_(update, alpha=-group["lr"])


def _moments(state: dict[str, torch.Tensor], like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if not state:
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(like), torch.zeros_like(like)
    return state["exp_avg"], state["exp_avg_sq"]


def _of_matrix(gradient: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
    moment.lerp_(gradient, 1 - MOMENTUM)
    return orthogonal(gradient.lerp_(moment, MOMENTUM)).mul_(1.0)


def _of_others(gradient: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    first.lerp_(gradient, 1 - BETAS[0])
    second.lerp_(gradient.square(), 1 - BETAS[1])
    one = first / (1 - BETAS[0])
    two = second / (1 - BETAS[1])
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
