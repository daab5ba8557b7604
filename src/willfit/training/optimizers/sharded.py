"""Parameters as an optimizer sees them on one of several ranks that share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import lcm
from typing import Literal

from willfit.errors import BadInput
from willfit.quantities import ceil_div, round_up
from willfit.training.parameters import Parameter

Pieces = Literal["whole", "flat", "rows"]

#: ZeRO 1 and 2 pad a parameter group to twice the ranks (deepspeed `runtime/zero/stage_1_and_2.py`,
#: `nccl_start_alignment_factor`).
_ZERO_ALIGNMENT = 2

#: ZeRO 3 steps over sub-groups of at most so many elements of a rank (`stage3.py`, `sub_group_size`).
_SUB_GROUP = 1_000_000_000

#: Megatron's buffers: parameters begin at multiples of 64 elements, buckets end at multiples of the ranks and of 128
#: (megatron-core `distributed/param_and_grad_buffer.py: _pad_start_of_param_if_needed`).
_MEGATRON_START, _MEGATRON_END = 64, 128

KINDS = ("none", "ddp", "fsdp1", "fsdp2", "zero1", "zero2", "zero3", "distributed-optimizer")


def local(
    parameters: Sequence[Parameter], kind: str, ranks: int, expert_ranks: int | None = None
) -> tuple[tuple[Parameter, ...], Pieces]:
    """What the fullest rank's optimizer sees.

    Parameters
    ----------
    parameters
        Trained parameters before data-parallel ranks share them.
    kind
        One of `KINDS`.
    ranks, expert_ranks
        Ranks that share a parameter, and an expert's.

    Raises
    ------
    BadInput
        For an unknown kind.
    """
    if kind not in KINDS:
        raise BadInput(f"no way of sharing {kind!r}", f"known: {', '.join(KINDS)}")
    shared = expert_ranks if expert_ranks is not None else ranks
    if kind in ("none", "ddp") or (ranks == 1 and shared == 1 and not kind.startswith("zero")):
        return tuple(parameters), "whole"
    if kind == "fsdp2":
        return tuple(_rows(one, shared if one.part == "experts" else ranks) for one in parameters), "rows"
    dense = [one for one in parameters if one.part != "experts"]
    experts = [one for one in parameters if one.part == "experts"]
    pieces = [*_flat(dense, kind, ranks, "flat"), *_flat(experts, kind, shared, "experts.flat")]
    return tuple(pieces), "flat"


def _rows(parameter: Parameter, ranks: int) -> Parameter:
    """FSDP2 cuts the first dimension; the first rank has the longest piece (`torch.chunk`)."""
    if not parameter.shape:
        return parameter
    return replace(parameter, shape=(ceil_div(parameter.shape[0], ranks), *parameter.shape[1:]))


def _flat(parameters: Sequence[Parameter], kind: str, ranks: int, name: str) -> list[Parameter]:
    """A rank's flat pieces."""
    total = sum(one.elements for one in parameters)
    if not total:
        return []
    part = parameters[0].part
    if kind in ("zero1", "zero2"):
        return [Parameter(name, (round_up(total, _ZERO_ALIGNMENT * ranks) // ranks,), part, "other")]
    if kind == "zero3":
        # Each parameter is padded for itself; the pieces of many are one tensor for the optimizer.
        own = sum(ceil_div(one.elements // one.copies, ranks) * one.copies for one in parameters)
        whole, left = divmod(own, _SUB_GROUP)
        found = [Parameter(name, (_SUB_GROUP,), part, "other", whole)] if whole else []
        return [*found, Parameter(name, (left,), part, "other")] if left else found
    if kind == "distributed-optimizer":
        padded = sum(round_up(one.elements // one.copies, _MEGATRON_START) * one.copies for one in parameters)
        return [Parameter(name, (round_up(padded, lcm(ranks, _MEGATRON_END)) // ranks,), part, "other")]
    layered = [one for one in parameters if "{layer}" in one.name]
    layers = max((one.copies for one in layered if "{expert}" not in one.name), default=0)
    layers = layers or (1 if layered else 0)
    inside = sum(one.elements for one in layered)
    found = []
    if inside:
        found.append(
            Parameter(
                f"{{layer}}.{name}", (ceil_div(ceil_div(inside, layers), ranks),), part, "other", layers
            )
        )
    if total > inside:
        found.append(Parameter(name, (ceil_div(total - inside, ranks),), part, "other"))
    return found
