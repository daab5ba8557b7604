"""What the stand-ins allocate, as JSON by the names of `tests/data/stand_ins.jsonl`: a process of its own, for the
shims stay."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import ours
import torch
from cases import CASES, ON_CPU
from models import LIGER, QUANTIZED, of_liger, of_quantized, summary
from streams import stream_of
from torch._subclasses.fake_tensor import FakeTensorMode

from willfit.tracing.question import Card, Train
from willfit.tracing.trace import Trace
from willfit.tracing.worker import shims
from willfit.tracing.worker.distributed.process import Alone
from willfit.tracing.worker.recipes import model as models
from willfit.tracing.worker.recipes import training
from willfit.tracing.worker.shims import values
from willfit.tracing.worker.tracer import Tracer


def main() -> None:
    """Run all and print."""
    shims.install(Card(), "fake-cuda")
    values.padded(False)
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        with FakeTensorMode():
            found[name] = stream_of(case, ours, "cpu" if name in ON_CPU else "cuda:0")
    for name in QUANTIZED:
        found[f"whole, {name}"] = summary(run(of_quantized(name), "cpu"))
    for kind in LIGER:
        found[f"whole, {kind}"] = summary(run(of_liger(kind), "cuda:0"))
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)


def run(asked: Train, device: str) -> Trace:
    """Steps on a fake device."""
    model = models.built(asked)[0]
    tracer = Tracer(device, Card())
    with FakeTensorMode(allow_non_fake_inputs=True):
        for category, name, tensor in models.place(model, torch.device(device)):
            tracer.adopt(tensor, category, name)
        with tracer:
            training.prepare(asked, model, tracer)
            training.run(asked, model, tracer, Alone(model, asked, tracer))
    return tracer.trace


if __name__ == "__main__":
    main()
