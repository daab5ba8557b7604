"""What a traced run says, in bytes: see README.md for the fields of a line."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import torch
from tracer import Block, Tracer

#: How many of the largest groups of storages a line lists.
LISTED = 25
PHASES = ("forward", "backward", "clip", "optimizer")
#: What is there whatever the step does.
STATES = ("parameter", "buffer", "optimizer", "gradient", "input")
#: `kMinBlockSize` of c10/core/AllocatorConfig.h.
BLOCK = 512
#: A layer: the path up to the first number behind a list of modules.
LAYER = re.compile(r"^(.*?\.?(?:layers|h|block|blocks|layer)\.\d+)(?:\.|$)")


def of(
    scenario: dict[str, Any], model: torch.nn.Module, tracer: Tracer, marks: dict[tuple[int, int, str], int]
) -> dict[str, Any]:
    """The line of a scenario."""
    import attention
    import transformers

    label_rest(tracer, marks)
    parameters = list(model.parameters())
    line: dict[str, Any] = dict(scenario)
    line["versions"] = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    if scenario["settings"].get("adapter"):
        import peft

        line["versions"]["peft"] = peft.__version__
    line["kernels"] = attention.chosen
    line["parameters"] = sum(p.nbytes for p in parameters)
    line["trained"] = sum(p.nbytes for p in parameters if p.requires_grad)
    line["buffers"] = sum(b.nbytes for b in tracer.blocks if b.label == "buffer")
    line["saved"] = saved(tracer, marks)
    numbers = sorted({key[0] for key in marks})
    line["steps"] = [step(tracer, marks, number, brief=number < numbers[-1]) for number in numbers]
    line["peak"] = peak(tracer, range(len(tracer.totals)))
    line["peak"]["in_blocks"] = in_blocks(tracer)
    last = [i for i, place in enumerate(tracer.places) if place.step == numbers[-1]]
    backward = [i for i in last if tracer.places[i].phase == "backward"]
    line["backward_live"] = listed(tracer, peak_event(tracer, backward))
    layers = [i for i in backward if LAYER.match(tracer.places[i].module)]
    if layers:
        line["layers_live"] = listed(tracer, peak_event(tracer, layers))
    return line


def label_rest(tracer: Tracer, marks: dict[tuple[int, int, str], int]) -> None:
    """Label what no one named: alive when a forward pass ended, or not."""
    ends = {key[:2]: event for key, event in marks.items() if key[2] == "forward"}
    for block in tracer.blocks:
        if block.label:
            continue
        end = ends.get((block.place.step, block.place.micro))
        kept = block.place.phase == "forward" and end is not None
        block.label = "activation" if kept and (block.died is None or block.died > end) else "temporary"


def saved(tracer: Tracer, marks: dict[tuple[int, int, str], int]) -> dict[str, Any]:
    """What the first forward pass keeps for the backward pass, by where it was made; in detail for one layer of each
    amount."""
    end = marks[1, 1, "forward"]
    kept: dict[str, list[Block]] = defaultdict(list)
    for block in tracer.alive_at(end):
        if block.place.phase == "forward":
            kept[region(block.place.module)].append(block)
    sums = {name: sum(block.nbytes for block in blocks) for name, blocks in kept.items()}
    shown = {amount: name for name, amount in sums.items() if LAYER.match(name)}
    return {
        "total": sum(sums.values()),
        "regions": sums,
        "layers": {
            name: [
                [b.nbytes, b.op, b.place.module.removeprefix(name).strip("."), list(b.shape), b.dtype]
                for b in kept[name]
            ]
            for name in shown.values()
        },
    }


def region(module: str) -> str:
    """The layer that a module belongs to, or the module itself."""
    found = LAYER.match(module)
    return found.group(1) if found else module


def step(tracer: Tracer, marks: dict[tuple[int, int, str], int], number: int, brief: bool) -> dict[str, Any]:
    """A step: what is allocated at its marks, and the peaks of its phases; only their bytes, if brief."""
    events = [i for i, place in enumerate(tracer.places) if place.step == number]
    phases = {phase: [i for i in events if tracer.places[i].phase == phase] for phase in PHASES}
    phases["loss"] = [i for i in events if tracer.places[i].module == "loss"]
    result: dict[str, Any] = {
        "step": number,
        "allocated": {
            name if micro < 2 else f"{name} {micro}": tracer.totals[event]
            for (at, micro, name), event in marks.items()
            if at == number
        },
    }
    for phase, inside in phases.items():
        if inside and brief:
            result[phase] = max(tracer.totals[i] for i in inside)
        elif inside:
            result[phase] = peak(tracer, inside)
    if not brief:
        for phase in ("forward", "backward"):
            result[phase]["regions"] = regions(tracer, phases[phase])
    return result


def regions(tracer: Tracer, events: list[int]) -> dict[str, Any]:
    """The highest allocation in each region; with what kernels take by themselves as a second number, if more."""
    seen: dict[str, int] = {}
    worst: dict[str, int] = {}
    for i in events:
        if tracer.ops[i] != "free":
            name = region(tracer.places[i].module)
            seen[name] = max(seen.get(name, 0), tracer.totals[i])
            worst[name] = max(worst.get(name, 0), tracer.totals[i] + tracer.extra.get(i, 0))
    return {name: most if most == worst[name] else [most, worst[name]] for name, most in seen.items()}


def peak_event(tracer: Tracer, events: Any) -> int:
    """The first event of the highest allocation."""
    return max(events, key=lambda i: (tracer.totals[i], -i))


def peak(tracer: Tracer, events: Any) -> dict[str, Any]:
    """The highest allocation of some events: where, what ran, and what was alive. `with_workspace` is the highest
    including what kernels are known to take by themselves, where that is more."""
    event = peak_event(tracer, events)
    place = tracer.places[event]
    labels: dict[str, int] = defaultdict(int)
    for block in tracer.alive_at(event):
        labels[block.label] += block.nbytes
    result: dict[str, Any] = {"bytes": tracer.totals[event], "phase": place.phase, "op": tracer.ops[event]}
    if place.node:
        result["node"] = place.node
    result["module"] = place.module
    if place.again:
        result["recomputing"] = True
    result["alive"] = dict(labels)
    worst = max(tracer.totals[i] + tracer.extra.get(i, 0) for i in events)
    if worst > tracer.totals[event]:
        result["with_workspace"] = worst
    return result


def in_blocks(tracer: Tracer) -> int:
    """The highest sum of storages, each in whole blocks of the caching allocator."""
    changes: dict[int, int] = defaultdict(int)
    for block in tracer.blocks:
        size = -(-block.nbytes // BLOCK) * BLOCK
        changes[block.born] += size
        if block.died is not None:
            changes[block.died] -= size
    now = most = 0
    for event in sorted(changes):
        now += changes[event]
        most = max(most, now)
    return most


def listed(tracer: Tracer, event: int) -> list[list[Any]]:
    """The largest groups of like storages at an event, but for states: bytes in all, how many, label, phase, operation,
    module, shape, dtype."""
    groups: dict[tuple[Any, ...], list[Block]] = defaultdict(list)
    for block in tracer.alive_at(event):
        if block.label not in STATES:
            module = re.sub(r"\.\d+(?=\.|$)", ".*", block.place.module)
            groups[block.label, block.op, module, block.shape, block.dtype, block.place.phase].append(block)
    rows = [
        [sum(b.nbytes for b in blocks), len(blocks), label, phase, op, module, list(shape), dtype]
        for (label, op, module, shape, dtype, phase), blocks in groups.items()
    ]
    return sorted(rows, key=lambda row: (-row[0], row[2:6]))[:LISTED]
