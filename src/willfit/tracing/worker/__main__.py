"""Trace programs: `python -m willfit.tracing.worker FOLDER AT_ONCE`, a list of questions on standard input.

The shims stay in a process, so each program has one of its own: this one if there is one question, else forked ones,
which share what was imported. The trace of question 3 is the file `FOLDER/3`; what is said on the way, `protocol.py`
knows.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
import traceback
from pathlib import Path

from willfit.errors import BadInput
from willfit.tracing.question import Generate, Question, Train
from willfit.tracing.trace import Trace
from willfit.tracing.worker.protocol import Line

#: Exit status where the program cannot be traced, and the parent was told why.
REFUSED = 3

#: Characters of an error that are told.
_LONGEST = 200


def main() -> None:
    """Read, run, write; never return, as autograd's threads for a device that is not there would not end."""
    gc.disable()  # while libraries are imported, which takes a fifth longer else; the tracer enables it
    questions: list[Question] = pickle.load(sys.stdin.buffer)  # of the parent process, which is this program
    line, folder, at_once = Line(), Path(sys.argv[1]), int(sys.argv[2])
    if len(questions) == 1:
        os._exit(answer(questions[0], folder / "0", line))
    warm()
    running = 0
    for index, question in enumerate(questions):
        if running == at_once:
            os.wait()
            running -= 1
        if os.fork() == 0:
            os._exit(answer(question, folder / str(index), line))
        running += 1
    while running:
        os.wait()
        running -= 1
    os._exit(0)


def warm() -> None:
    """Import what most programs need, before processes are forked."""
    import peft
    import torch
    import transformers

    _ = peft.LoraConfig, torch.optim.AdamW, transformers.AutoModelForCausalLM


def answer(question: Question, file: Path, line: Line) -> int:
    """Trace a program into a file; the exit status."""
    try:
        file.write_bytes(traced(question, line).to_bytes())
        status = 0
    except BadInput as error:
        line.failed(error, file.name)
        status = REFUSED
    except Exception as error:
        traceback.print_exc()
        line.failed(
            BadInput(f"the traced program failed: {_told(error)}", "`willfit train` needs no trace"),
            file.name,
        )
        status = REFUSED
    sys.stderr.flush()
    return status


def _told(error: Exception) -> str:
    """An error as a line, with where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    said = next(iter(str(error).splitlines()), "no message")
    return f"{type(error).__name__}: {said[:_LONGEST]}{where}"


def traced(question: Question, line: Line) -> Trace:
    """What the program allocates and frees."""
    from willfit.tracing.worker import paths, shims
    from willfit.tracing.worker.tracer import Tracer

    path = question.path or paths.best(question.card)
    shims.install(question.card, path)
    tracer = Tracer("cuda:0" if path == paths.CUDA else "cpu", question.card, line.progress)
    program = question.program
    if isinstance(program, Train):
        from willfit.tracing.worker.recipes import training

        training.trace(program, tracer)
    elif isinstance(program, Generate):
        from willfit.tracing.worker.recipes import generation

        generation.trace(program, tracer)
    else:
        from willfit.tracing.worker import scripts

        scripts.trace(program, tracer)
    return finished(tracer, path)


def finished(tracer: object, path: str) -> Trace:
    """The trace with what ran."""
    import torch

    from willfit.tracing.worker.cuda import attention
    from willfit.tracing.worker.tracer import Tracer

    assert isinstance(tracer, Tracer)
    trace = tracer.finished()
    trace.path = path
    trace.kernels = dict(attention.chosen)
    libraries = ("transformers", "peft", "accelerate", "trl")
    loaded = {name: sys.modules[name] for name in libraries if name in sys.modules}
    trace.versions = {
        "torch": torch.__version__.split("+")[0],
        **{name: str(getattr(module, "__version__", "")) for name, module in loaded.items()},
    }
    return trace


if __name__ == "__main__":
    main()
