"""Measure runs on the CPU in four ways: `python measure.py NAME ...` prints a line of JSON for each.

`fake`: the tracer on fake tensors. `real`: the tracer on real ones. `mem_tracker`: PyTorch's own dispatch mode,
`torch.distributed._tools.MemTracker`, which counts weak references to storages too, by other code; `new_sums`: the
tracer without the one thing that it knows better, that sums of gradients are made in place where no one looks on.
`alone`: what PyTorch's profiler saw of the allocator itself, call by call in the order of time, while nothing else
looked on. `profiler` and what follows it: the same, together with the tracer, so that each allocation is either a
storage that the tracer saw or is said to be none (`allocations.py`).

All are peaks in bytes of two optimizer steps, or of a call of `generate`, over what the model itself takes.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
from contextlib import nullcontext
from dataclasses import asdict
from time import perf_counter
from typing import Any

import real_steps
import torch
import torch.utils.checkpoint
from allocations import Addressed, OnCpu, compared
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.profiler import ProfilerActivity, profile

from willfit.tracing.question import Generate, Train
from willfit.tracing.worker.cuda.kernels import products_of_experts
from willfit.tracing.worker.distributed.process import Alone
from willfit.tracing.worker.recipes import generation, training
from willfit.tracing.worker.recipes import model as models
from willfit.tracing.worker.shims import values
from willfit.tracing.worker.tracer import Tracer

CPU = torch.device("cpu")
REENTRANT = torch.utils.checkpoint.CheckpointFunction.backward


def measured(name: str) -> dict[str, Any]:
    """All of a run."""
    asked = real_steps.scenario(name)
    found: dict[str, Any] = {"name": name, "seconds": {}}
    for way in (fake, real, new_sums, mem_tracker, alone, profiler):
        torch.utils.checkpoint.CheckpointFunction.backward = staticmethod(REENTRANT)
        gc.collect()
        began = perf_counter()
        found |= way(asked)
        found["seconds"][way.__name__] = round(perf_counter() - began, 2)
    return found


def prepared(asked: Train | Generate) -> Any:
    """The model on the meta device."""
    return models.built(asked)[0] if isinstance(asked, Train) else generation.built(asked)


def run(asked: Train | Generate, model: Any, tracer: Tracer) -> None:
    """The program itself. A tracer that is not active sees nothing of it."""
    if isinstance(asked, Train):
        training.prepare(asked, model, tracer)
        training.run(asked, model, tracer, Alone(model, asked, tracer))
    else:
        generation.run(asked, model, tracer)


def traced(asked: Train | Generate, tracer: Tracer, mode: Any) -> Tracer:
    """A tracer that followed a run."""
    model = prepared(asked)
    with mode:
        for category, name, tensor in models.place(model, CPU):
            tracer.adopt(tensor, category, name)
        if not isinstance(mode, FakeTensorMode):
            fill(model)
        tracer.watch(model)
        with tracer:
            run(asked, model, tracer)
    return tracer


def filled(asked: Train | Generate) -> Any:
    """The model for real."""
    model = prepared(asked)
    models.place(model, CPU)
    fill(model)
    return model


def fill(model: torch.nn.Module) -> None:
    """Numbers that a model can run with."""
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
        for buffer in model.buffers():
            buffer.zero_()
        for module in inner.modules():
            vars(module).pop("_is_hf_initialized", None)
        inner.initialize_weights()


def start(tracer: Tracer) -> int:
    """Bytes of the model."""
    return sum(
        storage.nbytes for storage in tracer.trace.storages if storage.category in ("parameter", "buffer")
    )


def stream(tracer: Tracer) -> str:
    """A digest of every allocation and free in order: bytes, operation and module. What autocast keeps it frees in the
    order of a hash table; so frees that follow one another are sorted."""
    digest = hashlib.sha256()
    frees: list[str] = []
    for event in tracer.trace.events:
        storage = tracer.trace.storages[max(event, ~event)]
        said = f"{storage.nbytes} {storage.op} {storage.place.module}\n"
        if event < 0:
            frees.append(said)
        else:
            digest.update("".join([*sorted(frees), "made ", said]).encode())
            frees.clear()
    digest.update("".join(sorted(frees)).encode())
    return digest.hexdigest()


def fake(asked: Train | Generate) -> dict[str, Any]:
    """The tracer on fake tensors."""
    tracer = traced(asked, OnCpu(), FakeTensorMode(allow_non_fake_inputs=True))
    return {"fake": max(tracer.trace.totals) - start(tracer), "fake_stream": stream(tracer)}


def real(asked: Train | Generate) -> dict[str, Any]:
    """The tracer on real ones."""
    tracer = traced(asked, OnCpu(), nullcontext())
    trace = tracer.trace
    return {
        "real": max(trace.totals) - start(tracer),
        "real_stream": stream(tracer),
        "model": start(tracer),
        "events": len(trace.events),
    }


def new_sums(asked: Train | Generate) -> dict[str, int]:
    """The tracer on real tensors, where each sum of gradients is a new tensor."""

    class New(OnCpu):
        def _take_place(self, *tensors: torch.Tensor) -> None:
            pass

    tracer = traced(asked, New(), nullcontext())
    return {"new_sums": max(tracer.trace.totals) - start(tracer)}


def mem_tracker(asked: Train | Generate) -> dict[str, int]:
    """PyTorch's tracker; on the CPU it rounds nothing.

    Without its hooks on modules, which say whose a storage is: they refuse frozen parameters and a module's second
    call, and hold gradients longer than they would live (`register_multi_grad_hook`).
    """
    model = filled(asked)
    tracker = MemTracker()
    tracker.track_external(model)
    tracker._mod_tracker.__enter__ = tracker._mod_tracker.__exit__ = lambda *_: None
    before = tracker.get_tracker_snapshot()[CPU]["Total"]
    with tracker:
        run(asked, model, OnCpu())
    return {"mem_tracker": tracker.get_tracker_snapshot("peak")[CPU]["Total"] - before}


def alone(asked: Train | Generate) -> dict[str, int]:
    """PyTorch's profiler, and nothing else."""
    model = filled(asked)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run(asked, model, OnCpu())
    now = peak = 0
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return {"alone": peak}


def profiler(asked: Train | Generate) -> dict[str, Any]:
    """PyTorch's profiler, and what of it the tracer did not see."""
    tracer = Addressed()
    model = filled(asked)
    tracer.watch(model)
    # As the profiler only sees what comes after its start, so does the tracer.
    for tensor in (*model.parameters(), *model.buffers()):
        tracer.leave_alone(tensor)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler, tracer:
        run(asked, model, tracer)
    return asdict(compared(profiler, tracer))


if __name__ == "__main__":
    torch.set_num_threads(1)  # what kernels take for each thread is then the same everywhere
    values.answer()
    values.padded(False)
    products_of_experts()
    for one in sys.argv[1:]:
        print(json.dumps(measured(one)), flush=True)
    sys.stderr.flush()
    os._exit(0)
