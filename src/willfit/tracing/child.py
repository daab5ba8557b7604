"""Running the child process: it is started, followed and, if someone interrupts, ended.

The child prints lines of JSON: `{"phase": ..., "step": ..., "events": ...}` as it goes, and `{"of": ..., "error": ...,
"hint": ...}` where it gives up. Its answers are files in a directory of its own, which is gone afterwards.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from willfit.errors import BadInput
from willfit.tracing.question import Question, Script
from willfit.tracing.trace import Trace

#: What a trace needs that willfit does not.
NEEDED = ("torch", "transformers", "peft", "accelerate")

#: Lines of what a child said that are shown if it dies.
_LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a traced program is.

    Attributes
    ----------
    phase, step
        See `trace.Place`.
    events
        Allocations and frees so far.
    """

    phase: str
    step: int
    events: int


def traced(question: Question, progress: Callable[[Progress], None] = lambda _: None) -> Trace:
    """What a program allocates and frees, from a process of its own.

    Parameters
    ----------
    progress
        Called as the program goes on.

    Raises
    ------
    BadInput
        If the program cannot be traced: what it said is in the message.
    """
    found = traced_all([question], progress)[0]
    if isinstance(found, BadInput):
        raise found
    return found


def traced_all(
    questions: Sequence[Question],
    progress: Callable[[Progress], None] = lambda _: None,
    at_once: int | None = None,
) -> list[Trace | BadInput]:
    """What programs allocate and free, each in a process of its own, or why it cannot be traced.

    Parameters
    ----------
    at_once
        How many run at a time; None for one on each processor.

    Raises
    ------
    BadInput
        If torch or what else a trace needs is not installed.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise BadInput(f"a trace needs {' and '.join(missing)}", "pip install 'willfit[trace]'")
    with tempfile.TemporaryDirectory(prefix="willfit-trace-") as folder:
        said = Path(folder, "stderr")
        # What someone's own program prints is theirs to see; libraries' words are shown if the child dies.
        theirs = any(isinstance(question.program, Script) for question in questions)
        with said.open("wb") as stderr:
            child = subprocess.Popen(
                [sys.executable, "-m", "willfit.tracing.worker", folder, str(at_once or os.cpu_count() or 1)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if theirs else stderr,
                start_new_session=True,  # an interrupt reaches this process, which ends the child
            )
        try:
            refused = _followed(child, questions, progress)
            status = child.wait()
        finally:
            _end(child)
        died = _died(status, said.read_text(errors="replace"))
        answers: list[Trace | BadInput] = []
        for index in range(len(questions)):
            answer = Path(folder, str(index))
            answers.append(
                Trace.from_bytes(answer.read_bytes()) if answer.exists() else refused.get(index, died)
            )
        return answers


def _followed(
    child: subprocess.Popen[bytes], questions: Sequence[Question], progress: Callable[[Progress], None]
) -> dict[int, BadInput]:
    """Give a child its questions and read what it prints; what is wrong with some, if it says so."""
    assert child.stdin is not None
    assert child.stdout is not None
    refused: dict[int, BadInput] = {}
    try:
        child.stdin.write(pickle.dumps(list(questions)))
        child.stdin.close()
    except BrokenPipeError:
        return refused  # it is gone, and its exit status says why
    for line in child.stdout:
        said = json.loads(line)
        if "error" in said:
            refused[int(said["of"])] = BadInput(said["error"], said["hint"])
        else:
            progress(Progress(**said))
    return refused


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child with all that it started."""
    if child.stdout is not None:
        child.stdout.close()
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _died(status: int, said: str) -> BadInput:
    """What to say of a child that gave no answer."""
    last = "\n".join(said.strip().splitlines()[-_LAST_LINES:])
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return BadInput(f"the traced program ended {how}: {last}", "`willfit train` answers without a trace")
