"""Seconds of a prompt and of a step of decoding: kernel after kernel, each held up by memory or by arithmetic.

A roofline (Williams, Waterman and Patterson 2009) of each kind of kernel, not of the whole: products with weights read
them and multiply; attention reads the cache and multiplies. Their times add up, as kernels of one sequence follow one
another, and with them what lies between kernels and between steps, and what ranks say to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from willfit.quantities import ceil_div
from willfit.speed.arithmetic import larger
from willfit.speed.links import all_reduce_s, all_to_all_s, send_s
from willfit.speed.rates import Rates
from willfit.speed.work import UNPACKED, Experts, Work

#: Elements that are sent between ranks are in 16 bits.
_SENT_BYTES = 2


@dataclass(frozen=True, slots=True)
class Stage:
    """Layers that one device, or one group of tensor-parallel ranks, runs.

    Attributes
    ----------
    rates
        What each of its devices reaches.
    dense, experts
        Shares of the layers' weights and of the routed experts that it has, between 0 and 1.
    """

    rates: Rates
    dense: float = 1.0
    experts: float = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model runs.

    Attributes
    ----------
    work
        Of one rank.
    stages
        Who runs which share, one after the other; the first step and the last are between them.
    pipelined
        Stages work on different sequences at the same time.
    expert_ranks, data_ranks
        Degree of expert parallelism, and how many replicas of all else share the experts, each with users of its own.
    captured_tokens
        Up to so many tokens graphs are replayed, so that nothing waits for Python.
    chunk
        Tokens of a prompt that are run at once; 0 for all.
    copies, repeats
        How often a step reads or writes the cache beside what attention reads, and how often for each query head.
    """

    work: Work
    stages: Sequence[Stage]
    pipelined: bool = True
    expert_ranks: int = 1
    data_ranks: int = 1
    captured_tokens: int = 0
    chunk: int = 0
    copies: float = 0
    repeats: float = 0


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds by what holds a pass up; each a number or an array.

    Attributes
    ----------
    bandwidth, compute
        Of kernels that wait for memory, and of those that wait for arithmetic.
    overhead, communication
        Between kernels and steps, and between ranks.
    """

    bandwidth: Any
    compute: Any
    overhead: Any
    communication: Any

    @property
    def total(self) -> Any:
        """The whole pass."""
        return self.bandwidth + self.compute + self.overhead + self.communication

    @property
    def binds(self) -> str:
        """What takes longest; of a number, not of an array."""
        parts = {
            "bandwidth": self.bandwidth,
            "compute": self.compute,
            "overhead": self.overhead,
            "communication": self.communication,
        }
        return max(parts, key=lambda name: float(parts[name]))


def decode_step(plan: Plan, users: Any, length: Any) -> Times:
    """One step that gives each of `users` sequences of `length` tokens its next one.

    Where stages work on different sequences at once, each step of a stage has its share of the users, and the step of
    a user is one turn through all stages.

    Parameters
    ----------
    users, length
        Numbers or arrays; the users of one replica.
    """
    work, count = plan.work, len(plan.stages)
    batch = larger(1, users / count) if plan.pipelined else users
    memory = arithmetic = overhead = spoken = 0 * (batch * length)
    tail = plan.stages[-1].rates
    for stage in plan.stages:
        rates = stage.rates
        for one in work.dense:
            read, flops = stage.dense * one.bytes, 2 * stage.dense * one.products * batch
            memory, arithmetic = _split(
                memory, arithmetic, _read_s(read, one.kind, rates), flops / rates.products[one.kind]
            )
        for routed in work.experts:
            read = stage.experts * routed.read(batch * plan.data_ranks)
            flops = 2 * stage.experts * routed.multiplied(batch * plan.data_ranks)
            memory, arithmetic = _split(
                memory,
                arithmetic,
                rates.experts * _read_s(read, routed.kind, rates),
                rates.experts * flops / rates.products[routed.kind],
            )
            overhead = overhead + _launches(routed, stage.experts, rates)
        cached = (
            stage.dense
            * batch
            * work.cache_read_bytes(length, plan.copies, plan.repeats)
            / rates.cache_bandwidth
        )
        scored = stage.dense * batch * work.decode_attention_flops(length) / rates.attention
        memory, arithmetic = _split(memory, arithmetic, cached, scored)
        overhead = overhead + stage.dense * work.layers * rates.layer_s
        spoken = spoken + _spoken(plan, stage, batch)
    for one in work.head:
        read_s = _read_s(one.bytes, one.kind, tail)
        memory, arithmetic = _split(
            memory, arithmetic, read_s, 2 * one.products * batch / tail.products[one.kind]
        )
    memory = memory + batch * work.row_bytes / tail.bandwidth
    waited = _waited(plan, memory + arithmetic + overhead, length)
    return Times(memory, arithmetic, overhead + waited + tail.step_s, spoken)


def prefill(plan: Plan, tokens: Any, sequences: Any = 1) -> Times:
    """The prompts of some sequences, `tokens` each, up to their first new tokens.

    Parameters
    ----------
    tokens, sequences
        Numbers or arrays.
    """
    work = plan.work
    whole = tokens * sequences
    passes = ceil_div(whole, plan.chunk) if plan.chunk else 1 + 0 * whole
    memory = arithmetic = overhead = spoken = 0.0 * whole
    tail = plan.stages[-1].rates
    for stage in plan.stages:
        rates = stage.rates
        for one in (*work.dense, *work.encoder):
            multiplied = work.source_tokens * sequences if one in work.encoder else whole
            flops = 2 * stage.dense * one.products * multiplied
            read = passes * stage.dense * one.bytes
            memory, arithmetic = _split(
                memory, arithmetic, _read_s(read, one.kind, rates), flops / rates.products[one.kind]
            )
        for routed in work.experts:
            read = passes * stage.experts * routed.read(whole / passes * plan.data_ranks)
            flops = 2 * stage.experts * routed.multiplied(whole * plan.data_ranks)
            memory, arithmetic = _split(
                memory,
                arithmetic,
                rates.experts * _read_s(read, routed.kind, rates),
                rates.experts * flops / rates.products[routed.kind],
            )
            overhead = overhead + passes * _launches(routed, stage.experts, rates)
        arithmetic = (
            arithmetic + stage.dense * sequences * work.prefill_attention_flops(tokens) / rates.attention
        )
        overhead = overhead + passes * stage.dense * work.layers * rates.layer_s
        spoken = spoken + passes * _spoken(plan, stage, whole / passes)
    for one in work.head:
        read_s = _read_s(one.bytes, one.kind, tail)
        memory, arithmetic = _split(
            memory, arithmetic, read_s, 2 * one.products * sequences / tail.products[one.kind]
        )
    waited = larger(0.0, passes * _launched_s(plan) - (memory + arithmetic + overhead))
    return Times(memory, arithmetic, overhead + waited + tail.step_s, spoken)


def request_s(plan: Plan, prompt: Any, generated: Any, users: Any = 1) -> Any:
    """Seconds from sending prompts together to the last of their answers, nothing else running.

    The length of a sequence is taken in the middle of its answer, where what it reads is the mean of what it reads on
    the way: the first token comes from the prompt's own pass.
    """
    first = prefill(plan, prompt, users).total
    return first + (generated - 1) * decode_step(plan, users, prompt + generated / 2).total


def _split(memory: Any, arithmetic: Any, read_s: Any, multiply_s: Any) -> tuple[Any, Any]:
    """Add the longer of two times to what it waits for."""
    longer = larger(read_s, multiply_s)
    waits_for_memory = (read_s >= multiply_s) * 1.0
    return memory + longer * waits_for_memory, arithmetic + longer * (1 - waits_for_memory)


def _read_s(size: Any, kind: Any, rates: Rates) -> Any:
    return size / rates.read[kind]


def _launches(routed: Experts, share: float, rates: Rates) -> float:
    """Two products for each expert of a layer, each a kernel of its own, where they are unpacked."""
    if routed.kind not in UNPACKED:
        return 0.0
    return 2 * routed.experts * routed.layers * share * rates.expert_launch_s


def _launched_s(plan: Plan) -> float:
    """Seconds of Python to launch all layers, and experts one by one where it runs them so."""
    rates, work = plan.stages[-1].rates, plan.work
    looped = sum(routed.experts * routed.layers for routed in work.experts)
    return work.layers * rates.launch_s + looped * rates.expert_loop_s


def _waited(plan: Plan, device_s: Any, length: Any) -> Any:
    """What a device waits for Python to launch kernels, if it is the faster."""
    waits = larger(0.0, _launched_s(plan) - device_s)
    return waits * (1.0 * (length > plan.captured_tokens))


def _spoken(plan: Plan, stage: Stage, tokens: Any) -> Any:
    """Between ranks: two sums a layer (Shoeybi et al. 2019, section 3), experts' exchange, and the next stage."""
    work, rates = plan.work, stage.rates
    message = tokens * work.hidden * _SENT_BYTES
    seconds = 2 * work.layers * stage.dense * all_reduce_s(message, work.ranks, rates)
    if plan.expert_ranks > 1:
        for routed in work.experts:
            sent = message * routed.chosen / plan.expert_ranks
            seconds = seconds + 2 * routed.layers * stage.dense * all_to_all_s(sent, plan.expert_ranks, rates)
    return seconds + (send_s(message, rates) if len(plan.stages) > 1 else 0)
