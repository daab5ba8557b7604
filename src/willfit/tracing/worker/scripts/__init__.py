"""Someone's own program, run as it is on fake CUDA, up to an optimizer step. README.md beside this file says how."""

from __future__ import annotations

import traceback

from willfit.errors import BadInput
from willfit.tracing.question import Script
from willfit.tracing.worker.recipes.training import follow_checkpoints
from willfit.tracing.worker.scripts import (
    compiled,
    failures,
    libraries,
    loading,
    mode,
    outside,
    processes,
    scaling,
)
from willfit.tracing.worker.scripts.answers import Answers
from willfit.tracing.worker.scripts.following import Finished, Following
from willfit.tracing.worker.scripts.imports import AfterImport
from willfit.tracing.worker.scripts.program import Program, program_of
from willfit.tracing.worker.shims import memory, runtime
from willfit.tracing.worker.sources import source_line
from willfit.tracing.worker.tracer import Tracer


def trace(asked: Script, tracer: Tracer) -> None:
    """Run the program until it has taken its steps.

    Raises
    ------
    BadInput
        If there is no such program, it fails, or it puts nothing on the device.
    """
    program = program_of(asked.words)
    if tracer.device.type != "cuda":
        raise BadInput(
            "scripts are traced on fake CUDA only, which this torch does not take", "Linux and torch 2.13"
        )
    notes = Notes(tracer)
    notes.add(f"{program.name} was run, its own code and what it imports, on fake CUDA")
    host = mode.HostIsReal()
    following = Following(tracer, asked.steps, lambda finished: _over(tracer, host, finished))
    host.arrived, host.became_parameter = following.arrive, following.is_parameter
    prepare(asked, tracer, host, following, notes)
    tracer.at("build")
    try:
        with host, tracer:
            _run(program)
    except BadInput:
        if following.taken < asked.steps:
            raise
        notes.add(f"{program.name} failed after the last step that was asked for")
    if host.over is None:
        tracer.mark("end")
        _over(tracer, host, Finished())
    if not tracer.trace.storages:
        raise BadInput(f"{program.name} put nothing on the device", "it is asked for as torch.device('cuda')")
    if following.taken < asked.steps:
        notes.add(f"{program.name} ended after {following.taken} of {asked.steps} optimizer steps")


class Notes:
    """What a reader of the trace must know, each once."""

    def __init__(self, tracer: Tracer) -> None:
        self._notes = tracer.trace.notes

    def add(self, note: str) -> None:
        """Say something."""
        if note not in self._notes:
            self._notes.append(note)

    def assumed(self, what: str) -> None:
        """Say what was assumed, and at which line."""
        where = source_line()
        self.add(f"assumed: {what}{f' ({where})' if where else ''}")


def prepare(asked: Script, tracer: Tracer, host: mode.HostIsReal, following: Following, notes: Notes) -> None:
    """Put in place what a program finds otherwise than on a card."""
    imports = AfterImport()
    runtime.install(tracer.card, asked.ranks)
    memory.Meter(tracer.trace, tracer.card).install()
    mode.parameters_are_fake(host)
    mode.data_is_set()
    mode.modules_move()
    Answers(notes.assumed).install()
    scaling.gradients_are_finite()
    compiled.is_not(notes.add)
    outside.quiet(imports, notes.add)
    loading.follow(imports, notes.add)
    libraries.follow(imports, tracer)
    following.install()
    follow_checkpoints(tracer)
    processes.install(asked.ranks, tracer, imports)


def _over(tracer: Tracer, host: mode.HostIsReal, finished: BaseException) -> None:
    """The trace ends here: what the script still does or lets go is not part of it."""
    tracer.trace.events = list(tracer.trace.events)
    host.over = finished


def _run(program: Program) -> None:
    """Run a program to its end, whichever that is."""
    try:
        program.run()
    except Finished:
        return
    except SystemExit as error:
        if error.code not in (None, 0):
            raise BadInput(
                f"{program.name} ended by itself with {error.code!r}", "what it said is above"
            ) from None
    except BadInput:
        raise
    except BaseException as error:
        traceback.print_exc()
        raise failures.told(error, program.name) from None
