"""Bytes of an adapted module's forward and backward, walked alone: what stays, and the two peaks.

The tape of a whole layer walks the same steps among its own; this walk answers for one module, and is what tests hold
against PyTorch.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from willfit.training.adapters.forward import AdapterForward, Value


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes beside the module's input, its output's gradient and all parameters.

    Attributes
    ----------
    kept
        After the forward: what autograd keeps, and the result.
    forward
        Peak of the forward.
    backward
        Peak of the backward, gradients of parameters and of the input included.
    """

    kept: int
    forward: int
    backward: int


def footprint(
    forward: AdapterForward,
    tokens: int,
    samples: int = 1,
    input_gradient: bool = True,
    adds_in_place: bool = True,
) -> Footprint:
    """Walk a forward and its backward.

    Parameters
    ----------
    forward
        The steps.
    tokens, samples
        Tokens in all, in how many sequences.
    input_gradient
        Whether the input needs a gradient, as in all layers but the first.
    adds_in_place
        Second gradients are added in place where they can be; False where a dispatch mode or anomaly detection
        holds the first.
    """
    values = {value.name: value for value in (forward.input, *forward.parameters)}
    outside = set(values)
    alias: dict[str, str] = {}
    for step in forward.steps:
        for value in (step.output, *step.extras):
            values[value.name] = value
        if not step.makes:
            alias[step.output.name] = alias.get(step.inputs[0], step.inputs[0])
    sizes = {name: value.bytes(tokens, samples) for name, value in values.items()}
    saved = Counter(alias.get(name, name) for step in forward.steps for name in step.saves)
    result = alias.get(forward.result, forward.result)
    last = {alias.get(name, name): index for index, step in enumerate(forward.steps) for name in step.inputs}
    held = {alias.get(name, name) for name in forward.held_to_end}
    live: dict[str, int] = {}
    peak = 0
    for index, step in enumerate(forward.steps):
        for value in (step.output, *step.extras):
            if value.name not in alias:
                live[value.name] = sizes[value.name]
        peak = max(peak, sum(live.values()))
        for name in list(live):
            if not saved[name] and name != result and name not in held and last.get(name, index) <= index:
                del live[name]
    live = {name: size for name, size in live.items() if saved[name] or name == result}
    kept = sum(live.values())
    if not saved[result]:
        live.pop(result, None)
    return Footprint(
        kept,
        peak,
        _backward(
            forward,
            values,
            sizes,
            live,
            saved,
            alias,
            outside,
            input_gradient,
            adds_in_place,
            tokens,
            samples,
        ),
    )


def _backward(
    forward: AdapterForward,
    values: dict[str, Value],
    sizes: dict[str, int],
    live: dict[str, int],
    saved: Counter[str],
    alias: dict[str, str],
    outside: set[str],
    input_gradient: bool,
    adds_in_place: bool,
    tokens: int,
    samples: int,
) -> int:
    """Peak of the backward; the result's gradient itself is the caller's.

    A second gradient of the same tensor is added in place if the first has storage of its own, and else into a new
    tensor: a linear layer's input gradient is a view of a two-dimensional product (PyTorch: InputBuffer::accumulate).
    """
    gradient_of: dict[str, str] = {forward.result: "given"}
    buffers = {"given": 0}
    views: set[str] = set()
    peak = sum(live.values())
    for number, step in enumerate(reversed(forward.steps)):
        own = gradient_of.pop(step.output.name, None)
        if own is None:
            continue
        made: list[tuple[str, str]] = []
        for position, name in enumerate(step.gradients):
            if name == "x" and not input_gradient:
                continue
            new = own
            if not (step.hands_gradient_on and _alike(values[name], step.output)):
                new = f"{number}.{position}"
                buffers[new] = sizes[name]
                if step.kind in ("linear", "base", "reduce") and values[name].per_token:
                    views.add(new)
            made.append((name, new))
        scratch = sum(value.bytes(tokens, samples) for value in step.backward)
        peak = max(peak, sum(live.values()) + sum(buffers.values()) + scratch)
        for name in step.saves:
            kept = alias.get(name, name)
            saved[kept] -= 1
            if not saved[kept] and kept not in outside:
                live.pop(kept, None)
        for name, new in made:  # what the operation kept is gone when its gradients are added to others
            first = gradient_of.setdefault(name, new)
            if first == new:
                continue
            users = [*gradient_of.values(), *(later for _, later in made)].count(first)
            if not adds_in_place or first in views or first == "given" or users > 1:
                gradient_of[name] = f"{new}+{name}"
                buffers[gradient_of[name]] = sizes[name]
            used = {*gradient_of.values(), *(later for _, later in made), first}
            buffers = {one: size for one, size in buffers.items() if one in used}
            peak = max(peak, sum(live.values()) + sum(buffers.values()))
        used = set(gradient_of.values())
        buffers = {name: size for name, size in buffers.items() if name in used}
    return peak


def _alike(left: Value, right: Value) -> bool:
    return (left.per_token, left.per_sample, left.fixed, left.dtype) == (
        right.per_token, right.per_sample, right.fixed, right.dtype,
    )  # fmt: skip
