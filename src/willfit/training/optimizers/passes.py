"""What a step takes in passing, from the order in which it makes and drops tensors.

Python drops a local variable when it is bound anew, not when its last reader has run: what the loop over the
parameters made for one of them is still there while the first things are made for the next. So a step is written as
the bindings that it does for one parameter, and these are carried out over the parameters in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from willfit.training.optimizers.records import Transient
from willfit.training.parameters import Parameter

#: A variable is bound to a new tensor of so many bytes; with none it is dropped, or is another name for what is there.
Binding = tuple[str, int]
Script = Callable[[Parameter], Sequence[Binding]]


def one_by_one(parameters: Iterable[Parameter], script: Script) -> Transient:
    """The fullest moment of a loop over parameters.

    Parameters
    ----------
    parameters
        In the order of the loop, those of a layer together.
    script
        Bindings that the body of the loop does for a parameter.
    """
    live: dict[str, int] = {}
    total = peak = 0
    parts: dict[str, int] = {}
    written: dict[int, Sequence[Binding]] = {}
    for parameter in visited(parameters):
        bindings = written.get(id(parameter))
        if bindings is None:
            bindings = written[id(parameter)] = script(parameter)
        for name, size in bindings:
            total += size
            before = live.get(name, 0)
            if total > peak:
                peak = total
                parts = {**live, name: size}
                if before and size:
                    parts[f"{name} of the tensor before"] = before
            total -= before
            live[name] = size
    formula = " + ".join(f"{size} B of {name}" for name, size in parts.items() if size)
    return Transient.exactly(peak, formula or "0 B")


def visited(parameters: Iterable[Parameter]) -> list[Parameter]:
    """Parameters so that every two that follow each other in the model do so here: layers and experts come twice."""
    found: list[Parameter] = []
    for layered, run in groupby(parameters, key=lambda one: one.copies > 1 and "{layer}" in one.name):
        layer: list[Parameter] = []
        for routed, group in groupby(run, key=lambda one: one.copies > 1 and "{expert}" in one.name):
            members = list(group)
            layer += members * (2 if routed else 1)
        found += layer * (2 if layered else 1)
        if not layered:
            found += [one for one in layer if one.copies > 1 and "{expert}" not in one.name]
    return found


def together(parameters: Iterable[Parameter], size: Callable[[Parameter], int], copies: int) -> Transient:
    """What lists of tensors take that are made for all parameters at once.

    Parameters
    ----------
    size
        Bytes of a tensor for one copy of a parameter.
    copies
        How many lists live at once.
    """
    total = sum(size(parameter) * parameter.copies for parameter in parameters)
    return Transient.exactly(total * copies, f"{copies} lists of intermediates x {total} B in all")


def larger(*transients: Transient) -> Transient:
    """The larger one of steps that follow each other."""
    chosen = max(transients, key=lambda one: one.bytes)
    low, high = max(one.low for one in transients), max(one.high for one in transients)
    return Transient(chosen.bytes, low, high, chosen.formula)
