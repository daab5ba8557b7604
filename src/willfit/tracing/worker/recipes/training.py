"""Optimizer steps as transformers' Trainer does them."""

from __future__ import annotations

from typing import Any

import torch
import torch.utils.checkpoint

from willfit.tracing.question import Train
from willfit.tracing.worker import distributed
from willfit.tracing.worker.cuda import flash
from willfit.tracing.worker.distributed.process import Alone
from willfit.tracing.worker.dtypes import dtype
from willfit.tracing.worker.recipes import casting, optimizers
from willfit.tracing.worker.recipes import model as models
from willfit.tracing.worker.shims import values
from willfit.tracing.worker.stand_ins.unsloth.checkpoints import Checkpoint
from willfit.tracing.worker.tracer import Tracer
from willfit.training.settings import TrainingSettings

#: `max_grad_norm` of `TrainingArguments`.
CLIP = 1.0


def trace(asked: Train, tracer: Tracer) -> None:
    """Build the model and take the steps."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    values.padded(bool(asked.settings.padded))
    if asked.settings.attention == "flash_attention_2":
        flash.install()
    model, notes = models.built(asked)
    tracer.trace.notes.extend(notes)
    prepare(asked, model, tracer)
    with FakeTensorMode(allow_non_fake_inputs=True):
        process = distributed.spread(model, asked, tracer)
        model = process.place()
        tracer.watch(process.inner)
        with tracer:
            run(asked, model, tracer, process)


def prepare(asked: Train, model: torch.nn.Module, tracer: Tracer) -> None:
    """Follow the loss, and run the forward pass under autocast if that is asked; before anything wraps the model."""
    follow_loss(model, tracer)
    precision = asked.settings.precision
    if precision.autocast:
        casting.under_autocast(model, dtype(precision.compute, "bf16"), tracer.device)


def run(asked: Train, model: torch.nn.Module, tracer: Tracer, process: Alone) -> None:
    """Some steps, with marks where each phase ends."""
    settings = asked.settings
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = optimizers.made(settings.optimizer, process.groups(trained), model)
    follow_checkpoints(tracer)
    micros = settings.gradient_accumulation
    batch: dict[str, torch.Tensor]
    for step in range(1, asked.steps + 1):
        tracer.at("input", step, 0)
        batches = [batch_of(settings, tracer.device) for _ in range(micros)]
        for batch in batches:
            for tensor in batch.values():
                tracer.label(tensor, "input")
        tracer.mark("start")
        for micro, batch in enumerate(batches, 1):
            tracer.at("forward", step, micro)
            since = len(tracer.trace.storages)
            with process.micro_batch(last=micro == micros):
                output = model(**batch)
                tracer.mark("output")
                loss = output["loss"] / micros if micros > 1 else output["loss"]
                if not settings.loss.keeps_logits:
                    del output
                tracer.mark("forward")
                tracer.kept(since)
                tracer.at("backward")
                loss.backward()
                del loss
                output = None
            tracer.mark("backward")
            for parameter in trained:
                if parameter.grad is not None:
                    tracer.label(parameter.grad, "gradient")
        tracer.micro = 0
        if asked.clipping:
            tracer.at("clip")
            process.clip(trained, CLIP)
            tracer.mark("clip")
        tracer.at("optimizer")
        optimizer.step()
        tracer.mark("optimizer")
        for state in optimizer.state.values():
            for kind, value in state.items():
                if isinstance(value, torch.Tensor):
                    tracer.label(value, "optimizer_state", kind)
        tracer.at("between")
        optimizer.zero_grad(set_to_none=True)
        del batches, batch
        tracer.mark("end")
    tracer.trace.notes.extend(optimizers.notes(optimizer))


def batch_of(settings: TrainingSettings, device: torch.device) -> dict[str, torch.Tensor]:
    """A batch as transformers' collators make it: tokens, the mask of padding, and a label for each token or, to
    classify, each sequence, in int64."""
    shape = (settings.micro_batch, settings.seq_len or 1)
    shapes: dict[str, tuple[int, ...]] = {
        "input_ids": shape,
        "attention_mask": shape,
        "labels": shape[:1] if settings.classes else shape,
    }
    return {name: torch.ones(size, dtype=torch.int64, device=device) for name, size in shapes.items()}


def follow_loss(model: Any, tracer: Tracer) -> None:
    """Call the loss a module of its own."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    function = inner.loss_function

    def loss_function(*args: Any, **kwargs: Any) -> torch.Tensor:
        tracer.enter("loss")
        try:
            found: torch.Tensor = function(*args, **kwargs)
            return found
        finally:
            tracer.leave()

    inner.loss_function = loss_function


def follow_checkpoints(tracer: Tracer) -> None:
    """Tell the tracer of checkpoints that run backward inside backward."""
    for checkpoint in (torch.utils.checkpoint.CheckpointFunction, Checkpoint):
        _follow(checkpoint, tracer)


def _follow(checkpoint: Any, tracer: Tracer) -> None:
    backward = checkpoint.backward

    def nested(ctx: Any, *gradients: Any) -> Any:
        with tracer.whereabouts.reentered():
            return backward(ctx, *gradients)

    checkpoint.backward = staticmethod(nested)
