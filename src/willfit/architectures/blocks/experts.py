"""Mixtures of experts whose experts are stored one by one: router, routed experts, shared expert."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.blocks.feed_forward import gated_mlp, router
from willfit.architectures.blocks.tensors import buffer
from willfit.architectures.model import FeedForward, Tensor
from willfit.checkpoints.config import Config


@dataclass(frozen=True, slots=True)
class Experts:
    """The widths of a mixture of experts.

    Attributes
    ----------
    count, top_k
        Routed experts, and how many of them a token uses.
    width
        Intermediate size of one routed expert.
    shared_width
        Intermediate size of all shared experts together; 0 without one.
    """

    count: int
    top_k: int
    width: int
    shared_width: int = 0

    @property
    def feed_forward(self) -> FeedForward:
        """The same widths as the layer's feed-forward part."""
        return FeedForward(self.shared_width, experts=self.count, top_k=self.top_k, expert_width=self.width)


def experts_of(config: Config) -> Experts:
    """Read the widths of a mixture of experts under their usual spellings.

    Raises
    ------
    BadInput
        If a field is missing or impossible; the message names it.
    """
    width = config.integer("moe_intermediate_size")
    shared = config.integer("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", default=0)
    return Experts(
        count=config.integer("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts"),
        top_k=config.integer("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_top_k"),
        width=width,
        shared_width=shared * width,
    )


def expert_tensors(
    prefix: str,
    hidden: int,
    experts: Experts,
    *,
    gate: str = "gate",
    bias: str = "",
    shared: str = "shared_experts",
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
) -> tuple[Tensor, ...]:
    """Router, routed experts one by one, and the shared expert.

    Parameters
    ----------
    prefix
        Name of the mixture, without a trailing dot.
    hidden
        Width of the layer's input and output.
    gate, shared
        Names of the router and of the shared expert.
    bias
        Name of the router's correction bias, which is stored but no parameter; empty without one.
    names
        Gate, up and down projections of an expert.
    """
    return (
        *router(f"{prefix}.{gate}", hidden, experts.count),
        *(buffer(f"{prefix}.{bias}", (experts.count,), "router") if bias else ()),
        *gated_mlp(
            f"{prefix}.experts.{{expert}}",
            hidden,
            experts.width,
            part="experts",
            names=names,
            copies=experts.count,
        ),
        *(gated_mlp(f"{prefix}.{shared}", hidden, experts.shared_width) if experts.shared_width else ()),
    )
