"""`run: estimate`: what `willfit MODEL` answers, on many devices at once where the engine has columns."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from functools import lru_cache, partial

from willfit.asking import machine_of
from willfit.engines.base import Machine, Subject
from willfit.engines.table import ask_usual, default_engine, engine_name
from willfit.engines.vllm import NAME as VLLM
from willfit.file_types import named_file_type
from willfit.formats.recognise import recipe_named
from willfit.hardware.processors import processor_kind
from willfit.quantities import parse_bytes
from willfit.speed.answer import speed_of
from willfit.surfaces.cli.commands.estimate import question_given
from willfit.sweeping.questions.columns import Columns
from willfit.sweeping.questions.models import model_of
from willfit.sweeping.questions.table import Group
from willfit.sweeping.questions.trying import tried
from willfit.sweeping.rows import Row, row_of


@lru_cache(maxsize=4096)
def _machine(gpu: str, host_ram: str | None, cpu: str | None) -> Machine:
    return machine_of(gpu, host_ram, cpu)


def check(given: Namespace) -> None:
    """Raise `BadInput` if an option cannot be read, whatever the model and the devices are."""
    question_given(given)
    if given.engine is not None:
        engine_name(given.engine)
    if given.format is not None and named_file_type(given.format) is None:
        recipe_named(given.format, "bf16")
    if given.host_ram is not None:
        parse_bytes(given.host_ram)
    if given.cpu is not None:
        processor_kind(given.cpu)


def rows(groups: Sequence[Group], speed: bool) -> list[Row]:
    """Ask at each point of all groups; what is wrong is in its row."""
    found: list[Row] = []
    columns = Columns()
    for given, gpus in groups:
        known = {} if speed else _in_columns(given, gpus, columns)
        found += [known.get(gpu) or tried(partial(_alone, given, gpu, speed), given.engine) for gpu in gpus]
    return found


def _alone(given: Namespace, gpu: str | None, speed: bool) -> Row:
    """The answer on one set of devices, as `asking.answer_about` has it."""
    machine = _machine(str(gpu), given.host_ram, given.cpu)
    engine, subject, is_gguf = _asked(given)
    answer = ask_usual(engine, subject, machine, question_given(given), is_gguf)
    return row_of(answer, speed_of(subject, machine, answer) if speed else None)


def _asked(given: Namespace) -> tuple[str | None, Subject, bool]:
    engine = engine_name(given.engine) if given.engine is not None else None
    return engine, *model_of(given.model, given.format, given.revision, given.offline, engine)


def _in_columns(given: Namespace, gpus: Sequence[str | None], columns: Columns) -> dict[str | None, Row]:
    """The answers on the sets that vLLM is asked about and that are so many of one device.

    Left out is what has an answer only alone: errors, a host whose RAM is known, and where no engine was named and
    vLLM refuses, so that another is asked.
    """
    try:
        engine, subject, is_gguf = _asked(given)
        machines = {gpu: _machine(str(gpu), given.host_ram, given.cpu) for gpu in gpus}
        sets = {
            gpu: (machine.devices[0], len(machine.devices))
            for gpu, machine in machines.items()
            if len(set(machine.devices)) == 1
            and machine.host_bytes is None
            and machine.devices[0].usable_bytes
            and (engine or default_engine(subject, machine, is_gguf)) == VLLM
        }
        found = columns.rows(subject, sets, question_given(given)) if sets else {}
    except Exception:  # one of many: asked alone, each says what is wrong with it
        return {}
    return {gpu: row for gpu, row in found.items() if engine is not None or not row.refusal}
