"""Hold the tracer against PyTorch's own profiler on a real step on the CPU.

    python tests/oracle/training/against_profiler.py < scenario.json

Prints the peak of two steps over their start, in bytes: as the profiler counts the allocator's calls, as the tracer
counts storages of real tensors, and as it counts those of fake ones.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from typing import Any

import answers
import models
import worker as program
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile
from tracer import Tracer


def peaks(scenario: dict[str, Any]) -> dict[str, int]:
    """The three peaks."""
    program.DEVICE = "cpu"
    answers.install(padded=False)
    return {
        "profiler": profiled(scenario),
        "real": traced(scenario),
        "fake": traced(scenario, fake=True),
    }


def traced(scenario: dict[str, Any], fake: bool = False) -> int:
    """The tracer's peak."""
    model, tracer = models.build(scenario), Tracer("cpu")
    mode = FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext()
    with mode:
        for label, name, tensor in models.place(model, "cpu"):
            tracer.adopt(tensor, label, name)
        start = tracer.now
        with tracer:
            program.run(scenario, model, tracer)
    return max(tracer.totals) - start


def profiled(scenario: dict[str, Any]) -> int:
    """The profiler's peak: the allocator's calls in the order of time."""
    model = models.build(scenario)
    models.place(model, "cpu")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        program.run(scenario, model, Tracer("cpu"))  # not active: it sees nothing
    now = peak = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


if __name__ == "__main__":
    print(json.dumps(peaks(json.load(sys.stdin))))
