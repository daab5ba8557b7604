"""Run one program on fake tensors: `python -m willfit.tracing.worker ANSWER`, the question on standard input.

One process is one program: the shims stay. It prints its progress as lines of JSON, and writes the trace into the file
`ANSWER`.
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

from willfit.tracing.question import Question, Train
from willfit.tracing.trace import Trace


def main() -> None:
    """Read, run, write."""
    question: Question = pickle.load(sys.stdin.buffer)  # of the parent process, which is this program
    trace = traced(question)
    Path(sys.argv[1]).write_bytes(trace.to_bytes())
    sys.stdout.flush()
    os._exit(0)  # autograd's threads for a device that is not there would not end


def traced(question: Question) -> Trace:
    """What the program allocates and frees."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from willfit.tracing.worker import shims
    from willfit.tracing.worker.cuda import attention, flash
    from willfit.tracing.worker.recipes import model as models
    from willfit.tracing.worker.recipes import training
    from willfit.tracing.worker.tracer import Tracer

    program = question.program
    assert isinstance(program, Train)
    shims.install(question.card)
    shims.values.padded(bool(program.settings.padded))
    if program.settings.attention == "flash_attention_2":
        flash.install()
    model = models.built(program)
    tracer = Tracer("cuda:0")
    with FakeTensorMode(allow_non_fake_inputs=True):
        for category, name, tensor in models.place(model, tracer.device):
            tracer.adopt(tensor, category, name)
        tracer.watch(model)
        with tracer:
            training.run(program, model, tracer)
    trace = tracer.finished()
    trace.kernels = dict(attention.chosen)
    trace.versions = {"torch": torch.__version__.split("+")[0]}
    return trace


if __name__ == "__main__":
    main()
