"""A script that is one process of several: the others are not there, and what they send changes no bytes."""

from __future__ import annotations

import os
from typing import Any

import torch.distributed as dist

from willfit.errors import BadInput
from willfit.tracing.worker.distributed import ddp, groups, storages, streams
from willfit.tracing.worker.scripts.imports import AfterImport
from willfit.tracing.worker.tracer import Tracer


def install(ranks: int, tracer: Tracer, imports: AfterImport) -> None:
    """Let a script be the first of so many processes, as a launcher would tell it."""
    for name in ("torch.distributed.fsdp", "torch.distributed.fsdp._fully_shard"):
        imports.do(name, _no_shards)
    tracer.stream = streams.number
    if ranks == 1:
        return
    told = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    os.environ.update({**told, "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"})
    storages.install(tracer)
    ddp.install(tracer)
    plain = dist.init_process_group

    def start(*_: Any, **__: Any) -> None:
        dist.init_process_group = dist.distributed_c10d.init_process_group = plain
        groups.start(ranks)

    dist.init_process_group = dist.distributed_c10d.init_process_group = start


def _no_shards(module: Any) -> None:
    """FSDP's shards of a script's own parameters are not followed."""

    def refused(*_: object, **__: object) -> None:
        raise BadInput(
            "FSDP in a script is not traced", "willfit trace MODEL with the run's settings knows FSDP"
        )

    module.fully_shard = refused
    if hasattr(module, "FullyShardedDataParallel"):
        module.FullyShardedDataParallel.__init__ = refused
