"""The ways in which data-parallel ranks share a model, on top of tensor parallelism if that is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from willfit.tracing.question import Train
from willfit.tracing.worker.distributed import fsdp2, groups
from willfit.tracing.worker.distributed.process import Alone
from willfit.tracing.worker.recipes import model as models
from willfit.tracing.worker.tracer import Tracer


class Several(Alone):
    """One of several processes."""

    def __init__(self, model: torch.nn.Module, asked: Train, tracer: Tracer, sizes: groups.Sizes) -> None:
        super().__init__(model, asked, tracer)
        self.sizes = sizes
        self.mesh = groups.mesh_of(sizes, tracer.device)


class Second(Several):
    """FSDP2."""

    def __init__(self, model: torch.nn.Module, asked: Train, tracer: Tracer, sizes: groups.Sizes) -> None:
        super().__init__(model, asked, tracer, sizes)
        fsdp2.follow(tracer)
        fsdp2.shard(model, asked, sizes, self.mesh)

    def place(self) -> torch.nn.Module:
        """Put shards on the device."""
        models.place(self.model, self.tracer.device)
        fsdp2.settle(self.model)
        self.adopt()
        return self.model

    @contextlib.contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        """Gradients are scattered in the last one only, if the framework postpones that."""
        model: Any = self.model
        model.set_requires_gradient_sync(last or not self.asked.habits.postpones_sharing)
        yield


SCHEMES = {"fsdp2": Second}
