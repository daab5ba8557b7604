"""Operations of Unsloth and foak by name, and what the stand-ins allocate, as JSON.

It runs in a process of its own, for the shims stay.

A case is run twice, so that what stays after the first time shows.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from streams import sizes_of
from torch._subclasses.fake_tensor import FakeTensorMode

from willfit.tracing.question import Card
from willfit.tracing.worker import shims
from willfit.tracing.worker.stand_ins.bitsandbytes.four_bits import Linear4bit
from willfit.tracing.worker.stand_ins.unsloth import factors, lora, losses, norms
from willfit.tracing.worker.tracer import Tracer

DEVICE, BF16 = "cuda:0", torch.bfloat16
VERSIONS = ("2024.8", "2024.12.4", "2025.3.19", "2025.9.1", "2026.1.1")
#: Rows, widths in and out, rank: sizes tell terms apart.
ROWS, INPUTS, OUTPUTS, RANK, SCALE = (2, 50), 192, (320, 128, 96), 8, 2.0

Case = dict[str, Any]


def cases() -> dict[str, Case]:
    """Fused adapters on both kinds of bases, norms, rotary embeddings, losses of narrow and wide vocabularies."""
    found: dict[str, Case] = {}
    for packed in (True, False):
        base = "nf4" if packed else "bf16"
        for count, what in ((3, "three"), (1, "one")):
            for dropout in (0.1, 0.0):
                found[f"foak {what} {base} dropout {dropout}"] = {
                    "op": "projected", "version": None, "packed": packed, "count": count, "dropout": dropout,
                }  # fmt: skip
            for version in VERSIONS:
                found[f"unsloth {version} {what} {base}"] = {
                    "op": "projected", "version": version, "packed": packed, "count": count,
                }  # fmt: skip
        for version in VERSIONS:
            found[f"unsloth {version} mlp {base}"] = {"op": "mlp", "version": version, "packed": packed}
    for version in VERSIONS:
        found[f"unsloth {version} rms_norm"] = {"op": "rms_norm", "version": version}
        found[f"unsloth {version} rope"] = {"op": "rope", "version": version}
        for vocabulary in (192, 70000):
            found[f"unsloth {version} cross_entropy {vocabulary}"] = {
                "op": "cross_entropy", "version": version, "inputs": vocabulary,
            }  # fmt: skip
    return found


def layers(case: Case) -> tuple[list[Any], list[tuple[torch.nn.Parameter, torch.nn.Parameter]]]:
    """Base layers and the factors of each."""
    sizes = [(INPUTS, outputs) for outputs in OUTPUTS[: case.get("count", 3)]]
    if case["op"] == "mlp":
        sizes = [(INPUTS, 320), (INPUTS, 320), (320, INPUTS)]
    bases, pairs = [], []
    for inputs, outputs in sizes:
        if case["packed"]:
            bases.append(Linear4bit(inputs, outputs, False, BF16, True, dtype=BF16, device=DEVICE))
        else:
            made = torch.nn.Linear(inputs, outputs, bias=False, dtype=BF16, device=DEVICE)
            bases.append(made.requires_grad_(False))
        pairs.append((_parameter(RANK, inputs), _parameter(outputs, RANK)))
    return bases, pairs


def _parameter(*shape: int) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.empty(shape, device=DEVICE))


def heads(rows: torch.Tensor) -> torch.Tensor:
    """Rows as the heads of queries."""
    return rows.view(*ROWS, 6, 32).transpose(1, 2)


def stream(call: Callable[..., Any], held: Sequence[torch.Tensor], inputs: int = INPUTS) -> list[list[int]]:
    """Bytes allocated and freed, forward and back, twice."""
    tracer, found = Tracer(DEVICE, Card()), []
    events = tracer.trace.events
    for tensor in held:
        tracer.adopt(tensor, "parameter", "")
    for _ in range(2):
        rows = torch.empty(*ROWS, inputs, dtype=BF16, device=DEVICE, requires_grad=True)
        tracer.adopt(rows, "input", "")
        since = len(events)
        with tracer, torch.autocast("cuda", BF16):
            output = call(rows * 1)
        found.append(sizes_of(tracer.trace, events[since:]))
        outputs = output if isinstance(output, tuple) else (output,)
        gradients = [torch.empty_like(one) for one in outputs]
        for gradient in gradients:
            tracer.adopt(gradient, "gradient", "")
        since = len(events)
        with tracer:
            torch.autograd.backward(outputs, gradients)
        found.append(sizes_of(tracer.trace, events[since:]))
        del output, outputs, gradients, gradient, rows
        for tensor in held:
            tensor.grad = None
    return found


def held_by(bases: list[Any], pairs: list[Any]) -> list[torch.Tensor]:
    """Parameters and buffers."""
    return [
        *(one for base in bases for one in (*base.parameters(), *base.buffers())),
        *(factor for pair in pairs for factor in pair),
    ]


def ours(case: Case) -> list[list[int]]:
    """What a stand-in does."""
    kind = case["op"]
    if kind == "rms_norm":
        weight = torch.empty(INPUTS, dtype=BF16, device=DEVICE)
        return stream(lambda rows: norms.RMSNorm.apply(rows, weight, False), [weight])
    if kind == "rope":
        table = torch.empty(1, 1, ROWS[1], 32, dtype=BF16, device=DEVICE)
        return stream(lambda rows: norms.rotary(heads(rows), heads(rows), table, table), [table])
    if kind == "cross_entropy":
        labels = torch.empty(ROWS, dtype=torch.int64, device=DEVICE)
        return stream(
            lambda rows: losses.cross_entropy(rows.view(-1, rows.shape[-1]), labels.view(-1)),
            [labels],
            case["inputs"],
        )
    bases, pairs = layers(case)
    version = case["version"]
    way = factors.Apart() if version is None or version < "2025.3" else factors.InPlace()
    drop = None
    if "dropout" in case:
        drop = torch.nn.Dropout(case["dropout"]) if case["dropout"] else torch.nn.Identity()
    projections = tuple(factors.Projection(base, SCALE, drop) for base in bases)
    flat = [factor for pair in pairs for factor in pair]
    if kind == "mlp":
        return stream(
            lambda rows: lora.GatedMLP.apply(rows, way, projections, "swiglu", *flat), held_by(bases, pairs)
        )
    return stream(lambda rows: lora.Projected.apply(rows, way, projections, *flat), held_by(bases, pairs))


def main() -> None:
    """Run all and print."""
    shims.install(Card(), "fake-cuda")
    with FakeTensorMode():
        print(json.dumps({name: ours(case) for name, case in cases().items()}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
