"""`run: trace`: what `willfit trace` answers, the traces of a chunk in one child process."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from functools import partial

from willfit.asking import machine_of
from willfit.errors import BadInput
from willfit.surfaces.cli.commands.trace import asked_of
from willfit.surfaces.cli.training_options import training_settings
from willfit.sweeping.questions.table import Group
from willfit.sweeping.questions.trying import tried
from willfit.sweeping.rows import Row, error_row, row_of
from willfit.tracing.asking import Asked, Traced, allocator_settings, answered, answered_all


def check(given: Namespace) -> None:
    """Raise `BadInput` if an option cannot be read, whatever the model and the devices are."""
    training_settings(given, "transformers")
    allocator_settings(given.alloc_conf or "")


def rows(groups: Sequence[Group], speed: bool) -> list[Row]:
    """Ask at each point of all groups; what is wrong is in its row. A trace has no speed."""
    found = [_asked(given, gpu) for given, gpus in groups for gpu in gpus]
    engines = [given.engine for given, gpus in groups for _ in gpus]
    asked = [one for one in found if isinstance(one, Asked)]
    traced: list[Traced | BadInput | Asked]
    try:
        traced = [*answered_all(asked, at_once=1)]  # a chunk has one processor
    except Exception:  # one of many: asked alone, each says what is wrong with it
        traced = [*asked]
    answers = iter(traced)
    return [
        error_row(str(one), engine)
        if isinstance(one, BadInput)
        else tried(partial(_row, next(answers)), engine)
        for one, engine in zip(found, engines, strict=True)
    ]


def _asked(given: Namespace, gpu: str | None) -> Asked | BadInput:
    try:
        machine = None if gpu is None else machine_of(gpu, given.host_ram, given.cpu)
        return asked_of(given, machine, allocator_settings(given.alloc_conf or ""))
    except BadInput as error:
        return error


def _row(one: Traced | BadInput | Asked) -> Row:
    if isinstance(one, BadInput):
        raise one
    return row_of((answered(one) if isinstance(one, Asked) else one).estimate)
