"""A real rank on the CPU, with gloo: `rank.py CASE RANK STORE ANSWER`; the first writes what its tracer saw."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from cases import CASES

from willfit.tracing.question import Card
from willfit.tracing.worker import distributed
from willfit.tracing.worker.distributed import ddp, schemes
from willfit.tracing.worker.recipes import casting, training
from willfit.tracing.worker.recipes import model as models
from willfit.tracing.worker.shims import values
from willfit.tracing.worker.tracer import Tracer


def wrapped(model: torch.nn.Module, asked: object, tracer: Tracer) -> torch.nn.Module:
    """DDP with torch's own reducer."""
    layout = asked.settings.layout
    with tracer:
        return torch.nn.parallel.DistributedDataParallel(
            model,
            bucket_cap_mb=None if layout.bucket_bytes is None else layout.bucket_bytes / 2**20,
            find_unused_parameters=ddp.finds_unused(model),
            gradient_as_bucket_view=bool(layout.bucket_view),
        )


def main() -> None:
    asked, rank, store = CASES[sys.argv[1]], int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=asked.ranks)
    schemes.ddp.wrapped = wrapped
    values.padded(False)
    tracer = Tracer("cpu", Card())
    model = models.built(asked)[0]
    training.follow_loss(model, tracer)
    if asked.settings.precision.autocast:
        casting.under_autocast(model, torch.bfloat16, tracer.device)
    process = distributed.spread(model, asked, tracer)
    model = process.place()
    tracer.watch(process.inner)
    with tracer:
        training.run(asked, model, tracer, process)
    dist.barrier()
    if rank == 0:
        Path(sys.argv[4]).write_bytes(tracer.finished().to_bytes())
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
