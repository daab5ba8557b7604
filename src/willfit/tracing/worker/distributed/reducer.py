"""DDP's reducer, which torch has in C++ and which touches what fake tensors do not have: their bytes.

What it allocates is here (torch `csrc/distributed/c10d/reducer.cpp`, 2.13.0); what it copies is not. Everything around
it is torch's own Python code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from willfit.tracing.worker.tracer import Tracer


class Reducer:
    """`Reducer`: gradients are reduced in buckets.

    A bucket is one tensor for the gradients of its parameters, made with the reducer and once more when the order of
    their arrival is known. Each gradient is copied into it, and back; or it becomes a view of it.

    Parameters
    ----------
    tracer
        Told of buckets.
    parameters, buckets
        What is trained, and indices of what shares a bucket.
    finds_unused
        The graph is searched for unused parameters, so that buckets stay as they are.
    views
        Gradients are views of buckets.
    limits
        Bytes of the first bucket and the others when they are made again.
    """

    def __init__(
        self,
        tracer: Tracer,
        parameters: Sequence[torch.nn.Parameter],
        buckets: Sequence[Sequence[int]],
        finds_unused: bool,
        views: bool,
        limits: Sequence[int],
    ) -> None:
        self._tracer, self._parameters = tracer, list(parameters)
        self._finds_unused, self._views, self._limits = finds_unused, views, list(limits)
        self._order: list[int] = []
        self._rebuilt = self._expects = self._finishing = False
        self._buckets: list[torch.Tensor] = []
        self._parts: dict[int, torch.Tensor] = {}
        self._make(buckets)
        if finds_unused:  # `initialize_local_used_map`
            device = self._parameters[0].device
            self._used = torch.empty(len(self._parameters), dtype=torch.int32, device=device)
            tracer.relabel(self._used, "communication", "used parameters")
        for index, parameter in enumerate(self._parameters):
            parameter.register_post_accumulate_grad_hook(self._hook(index))

    def _make(self, buckets: Sequence[Sequence[int]]) -> None:
        """`initialize_buckets`."""
        self._buckets, self._parts = [], {}
        for number, indices in enumerate(buckets):
            parameters = [self._parameters[index] for index in indices]
            size = sum(parameter.numel() for parameter in parameters)
            bucket = torch.empty(size, dtype=parameters[0].dtype, device=parameters[0].device)
            self._tracer.relabel(bucket, "communication", f"bucket {number}")
            self._buckets.append(bucket)
            offset = 0
            for index, parameter in zip(indices, parameters, strict=True):
                self._parts[index] = bucket[offset : offset + parameter.numel()].view(parameter.shape)
                offset += parameter.numel()

    def _hook(self, index: int) -> Any:
        """`autograd_hook`, `mark_variable_ready_dense`."""

        def ready(parameter: torch.Tensor) -> None:
            if not self._expects:
                return
            if not self._finishing:
                self._finishing = True
                torch.autograd.Variable._execution_engine.queue_callback(self._finish)
            if not self._rebuilt and not self._finds_unused:
                self._order.append(index)
            if self._views:
                # Dense gradients of a strided parameter have its strides ("Gradient Layout Contract").
                parameter.grad = self._parts[index]

        return ready

    def _rebuild_buckets(self) -> bool:
        """`rebuild_buckets`: in the order in which gradients came, once."""
        if self._rebuilt or self._finds_unused or not self._order:
            return False
        assigned, _ = dist._compute_bucket_assignment_by_size(
            [self._parameters[index] for index in self._order],
            self._limits,
            [False] * len(self._order),
            self._order,
        )
        self._make(assigned)
        self._rebuilt = True
        return True

    def prepare_for_forward(self) -> None:
        """Count the step."""

    def prepare_for_backward(self, outputs: object) -> None:
        """Gradients from here on are reduced."""
        self._expects = True

    def _finish(self) -> None:
        """`finalize_backward`: gradients of passes that no one announces are not reduced."""
        self._expects = self._finishing = False

    def set_logger(self, logger: object) -> None:
        """Nothing is logged."""


class Logger:
    """`Logger`, which logs nothing here."""

    def __init__(self, reducer: object) -> None:
        pass

    def set_construction_data_and_log(self, *_: object) -> None:
        """Log nothing."""

    def set_runtime_stats_and_log(self) -> None:
        """Log nothing."""
