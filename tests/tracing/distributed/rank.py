"""A real rank on the CPU, with gloo: `rank.py CASE RANK STORE ANSWER [profiled]`.

The first writes what its tracer saw; or, `profiled`, the peak of what PyTorch's own profiler saw of the allocator.
"""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rank_cases import CASES
from torch.distributed import _functional_collectives
from torch.profiler import ProfilerActivity, profile

from willfit.tracing.question import Card, Train
from willfit.tracing.worker.distributed import ddp, spread
from willfit.tracing.worker.recipes import model as models
from willfit.tracing.worker.recipes import training
from willfit.tracing.worker.shims import values
from willfit.tracing.worker.tracer import Tracer

#: Seconds.
PAUSE = 0.003


class Blind(Tracer):
    """One that torch does not know of."""

    def __enter__(self) -> Blind:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def wrapped(model: torch.nn.Module, asked: Train, tracer: Tracer) -> torch.nn.Module:
    """DDP with torch's own reducer."""
    layout = asked.settings.layout
    with tracer:
        return torch.nn.parallel.DistributedDataParallel(
            model,
            bucket_cap_mb=None if layout.bucket_bytes is None else layout.bucket_bytes / 2**20,
            find_unused_parameters=ddp.finds_unused(model),
            gradient_as_bucket_view=bool(layout.bucket_view),
        )


def patient(module: Any, name: str) -> None:
    """Give gloo's threads the time to let go of what a collective was given."""
    inner = getattr(module, name)

    @functools.wraps(inner)
    def waiting(*args: Any, **kwargs: Any) -> Any:
        result = inner(*args, **kwargs)
        time.sleep(PAUSE)
        return result

    setattr(module, name, waiting)


def run(asked: Train, tracer: Tracer) -> None:
    """The recipe without fake tensors."""
    values.padded(False)
    model = models.built(asked)[0]
    training.prepare(asked, model, tracer)
    process = spread(model, asked, tracer)
    model = process.place()
    tracer.watch(process.inner)
    with tracer:
        training.run(asked, model, tracer, process)


def profiled(asked: Train) -> int:
    """The profiler's peak: the allocator's calls in the order of time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run(asked, Blind("cpu", Card()))
    now = peak = 0
    events: list[Any] = sorted(
        profiler.profiler.kineto_results.events(), key=lambda event: int(event.start_ns())
    )
    for event in events:
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def main() -> None:
    asked, rank, store, answer = CASES[sys.argv[1]], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=asked.ranks)
    ddp.wrapped = wrapped
    for name in ("all_gather_single", "reduce_scatter_single", "all_reduce", "broadcast"):
        patient(dist, name)
    patient(_functional_collectives, "wait_tensor")
    if sys.argv[5:] == ["profiled"]:
        content = str(profiled(asked)).encode()
    else:
        tracer = Tracer("cpu", Card())
        run(asked, tracer)
        content = tracer.finished().to_bytes()
    dist.barrier()
    if rank == 0:
        answer.write_bytes(content)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
