"""A process of a run, and what it does otherwise than one that is alone."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch

from willfit.tracing.question import Train
from willfit.tracing.worker.recipes import model as models
from willfit.tracing.worker.tracer import Tracer


class Alone:
    """One process that shares nothing; the others say where they differ.

    Attributes
    ----------
    model, inner
        As it is called, and without what is wrapped around it.
    """

    def __init__(self, model: torch.nn.Module, asked: Train, tracer: Tracer) -> None:
        self.model = self.inner = model
        self.asked, self.tracer = asked, tracer

    def place(self) -> torch.nn.Module:
        """Put the model on the device; call under the fake mode."""
        models.place(self.model, self.tracer.device)
        self.adopt()
        return self.model

    def adopt(self) -> None:
        """Tell the tracer of parameters and buffers as they are now."""
        for name, parameter in self.model.named_parameters():
            self.tracer.adopt(parameter, "parameter", name)
        for name, buffer in self.model.named_buffers():
            self.tracer.adopt(buffer, "buffer", name)

    def micro_batch(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Around the passes of a micro-batch, the last one of its step or not."""
        return contextlib.nullcontext()

    def clip(self, parameters: Sequence[torch.nn.Parameter], norm: float) -> None:
        """Clip gradients before the optimizer's step."""
        torch.nn.utils.clip_grad_norm_(parameters, norm, foreach=True)

    def groups(self, parameters: Sequence[torch.nn.Parameter]) -> Sequence[Any]:
        """Parameters as the optimizer is given them."""
        return parameters
