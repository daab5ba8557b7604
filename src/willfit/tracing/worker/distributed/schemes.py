"""The ways in which data-parallel ranks share a model, on top of tensor parallelism if that is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from willfit.tracing.question import Train
from willfit.tracing.worker.distributed import ddp, fsdp1, fsdp2, groups, tensor
from willfit.tracing.worker.distributed.process import Alone
from willfit.tracing.worker.recipes import model as models
from willfit.tracing.worker.tracer import Tracer


class Several(Alone):
    """One of several processes."""

    def __init__(self, model: torch.nn.Module, asked: Train, tracer: Tracer, sizes: groups.Sizes) -> None:
        super().__init__(model, asked, tracer)
        self.sizes = sizes
        self.mesh = groups.mesh_of(sizes, tracer.device)
        if sizes.tp > 1:
            tensor.divide(model, sizes, self.mesh)

    def clip(self, parameters: Sequence[torch.nn.Parameter], norm: float) -> None:
        """Clip as accelerate does, which tells DTensors from others."""
        from accelerate import Accelerator

        Accelerator._clip_grad_norm_dtensor_aware(None, list(parameters), norm)

    def groups(self, parameters: Sequence[torch.nn.Parameter]) -> Sequence[Any]:
        """One group for each mesh, as the Trainer makes them (`trainer.py: create_optimizer`)."""
        found: dict[object, list[torch.nn.Parameter]] = {}
        for parameter in parameters:
            found.setdefault(getattr(parameter, "device_mesh", None), []).append(parameter)
        return [{"params": group} for group in found.values()]


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


class First(Several):
    """FSDP1."""

    def place(self) -> torch.nn.Module:
        """Put units on the device and shard them, one by one."""
        fsdp1.follow(self.tracer)
        self.model = fsdp1.wrapped(self.model, self.asked, self.sizes, self.mesh, self.tracer)
        for name, buffer in self.model.named_buffers():
            self.tracer.relabel(buffer, "buffer", name)
        return self.model

    def micro_batch(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients are scattered in the last one only, if the framework postpones that."""
        model: Any = self.model
        postpones = self.asked.habits.postpones_sharing and not last
        return model.no_sync() if postpones else contextlib.nullcontext()

    def clip(self, parameters: Sequence[torch.nn.Parameter], norm: float) -> None:
        """Clip by the norm of all ranks' gradients."""
        model: Any = self.model
        model.clip_grad_norm_(norm)


class Copies(Several):
    """DDP."""

    def place(self) -> torch.nn.Module:
        """Put the whole model on the device, with buckets."""
        super().place()
        self.model = ddp.wrapped(self.model, self.asked, self.tracer)
        return self.model

    def micro_batch(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients are reduced in the last one only, if the framework postpones that."""
        model: Any = self.model
        postpones = self.asked.habits.postpones_sharing and not last
        return model.no_sync() if postpones else contextlib.nullcontext()


SCHEMES = {"ddp": Copies, "fsdp1": First, "fsdp2": Second, "none": Several}
