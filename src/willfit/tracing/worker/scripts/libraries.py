"""What libraries do otherwise on fake tensors, and what of them has a name in a trace."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from willfit.tracing.worker.scripts.imports import AfterImport
from willfit.tracing.worker.tracer import Tracer


def follow(imports: AfterImport, tracer: Tracer) -> None:
    """Follow losses, and let transformers look at values as it does on a card."""
    torch.nn.functional.cross_entropy = _loss(tracer, torch.nn.functional.cross_entropy)
    imports.do("transformers.utils.import_utils", _looks_at_values)
    imports.do("transformers.modeling_utils", lambda module: _losses(module.PreTrainedModel, tracer))


def _looks_at_values(module: Any) -> None:
    """transformers takes fake tensors for a graph that is captured, and then prepares for every value."""
    module.is_fake_tensor = lambda tensor: False


def _losses(model: Any, tracer: Tracer) -> None:
    """A model's loss is a module of its own."""
    plain: Any = model.loss_function
    model.loss_function = property(lambda self: _loss(tracer, plain.fget(self)), plain.fset)


def _loss(tracer: Tracer, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def loss(*args: Any, **named: Any) -> Any:
        tracer.enter("loss")
        try:
            return function(*args, **named)
        finally:
            tracer.leave()

    return loss
