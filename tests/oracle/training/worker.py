"""Run two training steps of a scenario on fake tensors and print what they allocate, as one line of JSON.

    python tests/oracle/training/worker.py < scenario.json

One process is one scenario: the shims (`shims.py`) stay.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import answers
import attention
import figures
import flash
import models
import optimizers
import shims
import torch
import torch.utils.checkpoint
from tracer import Tracer

DEVICE = "cuda:0"
STEPS = 2
#: `max_grad_norm` of `TrainingArguments`.
CLIP = 1.0


def trace(scenario: dict[str, Any]) -> dict[str, Any]:
    """Figures of a scenario in bytes (`figures.py`)."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    answers.install(padded=bool(scenario["settings"].get("padded")))
    if scenario["settings"].get("attention") == "flash_attention_2":
        flash.install()
    model = models.build(scenario)
    tracer = Tracer(DEVICE)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for label, name, tensor in models.place(model, DEVICE):
            tracer.adopt(tensor, label, name)
        tracer.watch(model)
        with tracer:
            marks = run(scenario, model, tracer)
    return figures.of(scenario, model, tracer, marks)


def run(scenario: dict[str, Any], model: torch.nn.Module, tracer: Tracer) -> dict[tuple[int, int, str], int]:
    """Two steps as transformers' Trainer does them; returns places in the list of events."""
    settings, also = scenario["settings"], scenario.get("also", {})
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = optimizers.make(settings.get("optimizer", {}), trained)
    forward = forward_of(model, settings["precision"])
    _follow(model, tracer)
    micros = settings.get("gradient_accumulation", 1)
    keeps = settings.get("loss", {}).get("keeps_logits", False)
    marks: dict[tuple[int, int, str], int] = {}

    def mark(name: str) -> None:
        marks[tracer.step, tracer.micro, name] = len(tracer.totals) - 1

    for step in range(1, STEPS + 1):
        tracer.step, tracer.micro, tracer.phase = step, 0, "input"
        batches = [answers.batch(settings, DEVICE) for _ in range(micros)]
        for batch in batches:
            for tensor in batch.values():
                tracer.label(tensor, "input")
        mark("start")
        for micro, batch in enumerate(batches, 1):
            tracer.micro, tracer.phase = micro, "forward"
            output = forward(**batch)
            mark("output")
            loss = output["loss"] / micros if micros > 1 else output["loss"]
            if not keeps:
                del output
            mark("forward")
            tracer.phase = "backward"
            loss.backward()
            del loss
            output = None
            mark("backward")
            for parameter in trained:
                if parameter.grad is not None:
                    tracer.label(parameter.grad, "gradient")
        tracer.micro = 0
        if also.get("clipping", True):
            tracer.phase = "clip"
            torch.nn.utils.clip_grad_norm_(trained, CLIP, foreach=True)
            mark("clip")
        tracer.phase = "optimizer"
        optimizer.step()
        mark("optimizer")
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    tracer.label(value, "optimizer")
        tracer.phase = "between"
        optimizer.zero_grad(set_to_none=True)
        del batches, batch
        mark("end")
    return marks


def forward_of(model: torch.nn.Module, precision: dict[str, Any]):  # type: ignore[no-untyped-def]
    """The forward pass, under autocast if asked: accelerate then also returns what is in 16 bits as float32."""
    if not precision.get("autocast"):
        return model

    def forward(**batch: torch.Tensor) -> dict[str, Any]:
        with torch.autocast(torch.device(DEVICE).type, models.DTYPES[precision["compute"]]):
            output = model(**batch)
        return raised(output)

    return forward


def raised(value: Any) -> Any:
    """A structure with its tensors of 16 bits as float32 (accelerate: `ConvertOutputsToFp32`)."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if isinstance(value, dict):
        return {key: raised(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(raised(item) for item in value)
    return value


def _follow(model: torch.nn.Module, tracer: Tracer) -> None:
    """Tell the tracer of the loss, and of checkpoints that run backward inside backward."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    function = inner.loss_function

    def loss_function(*args: Any, **kwargs: Any) -> torch.Tensor:
        tracer.enter("loss")
        try:
            return function(*args, **kwargs)
        finally:
            tracer.leave()

    inner.loss_function = loss_function
    checkpoint = torch.utils.checkpoint.CheckpointFunction
    backward = checkpoint.backward

    def nested(ctx: Any, *gradients: Any) -> Any:
        with tracer.reentered():
            return backward(ctx, *gradients)

    checkpoint.backward = staticmethod(nested)


def main() -> None:
    """Read a scenario, print its line."""
    scenario = json.load(sys.stdin)
    shims.install()
    attention.install()
    line = json.dumps(trace(scenario), separators=(",", ":"))
    print(line, flush=True)
    os._exit(0)  # threads of autograd for the pretended device would not end


if __name__ == "__main__":
    main()
