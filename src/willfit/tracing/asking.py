"""From what someone asks of a trace to its answer: find the model, run the child process or take what it found before,
and replay that on the device."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from willfit.allocator.device import Device as Memory
from willfit.allocator.history import History
from willfit.allocator.replay import Replay, replay
from willfit.allocator.settings import AllocatorSettings, parse_settings
from willfit.asking import spread_over
from willfit.checkpoints.locate import locate
from willfit.engines.base import Machine, Subject
from willfit.engines.subject import subject_of
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.hardware.table import find_device
from willfit.launch.table import variables_before
from willfit.launch.training.processes import processes_of
from willfit.tracing import cache
from willfit.tracing.asked import card_of, generate_question, train_question
from willfit.tracing.child import Progress, traced_all
from willfit.tracing.estimate import Told, estimate, memory_of
from willfit.tracing.export.picture import picture
from willfit.tracing.export.snapshot import snapshot_bytes
from willfit.tracing.export.timeline import timeline
from willfit.tracing.export.view import Caption
from willfit.tracing.question import Question, Script
from willfit.tracing.trace import Trace
from willfit.training.estimate import prepared
from willfit.training.settings import TrainingSettings

#: Whose kernels run where no device was named.
USUAL_DEVICE = "A100 80GB SXM"

#: Variables that say how the allocator works, the newer first.
_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


@dataclass
class Traced:
    """A trace with its answer.

    Attributes
    ----------
    trace, estimate
        What was seen, and what it means on the devices.
    title, told
        The model, and what was run, in a line.
    settings
        What `PYTORCH_ALLOC_CONF` sets.
    memory
        What the device has for the allocator; None if no device was named.
    """

    trace: Trace
    estimate: Estimate
    title: str
    told: str
    settings: AllocatorSettings
    memory: Memory | None

    @property
    def judged(self) -> bool:
        """Whether there is a device that it fits or does not."""
        return self.memory is not None

    def snapshot(self) -> bytes:
        """A memory snapshot as PyTorch's visualizer opens it."""
        history = History()
        self._replay(history=history)
        return snapshot_bytes(self.trace, history.entries, history.segments)

    def page(self) -> bytes:
        """The timeline as a page of its own."""
        return timeline(self.trace, self._caption).encode()

    def picture(self) -> bytes:
        """The timeline as SVG."""
        return picture(self.trace, self._caption).encode()

    @cached_property
    def _caption(self) -> Caption:
        series = self._replay(series=True).series
        assert series is not None
        room = 0 if self.memory is None else self.memory.capacity - self.memory.outside
        return Caption(self.title, self.told, series.reserved, room)

    def _replay(self, history: History | None = None, series: bool = False) -> Replay:
        trace = self.trace
        return replay(
            trace.sizes, trace.events, trace.streams, settings=self.settings, device=self.memory,
            emptied=trace.emptied, history=history, series=series,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A trace that is to be made, and what shall be said of it.

    Attributes
    ----------
    question
        What runs.
    told, said
        What it is, for the answer; and in a line.
    machine, judged
        The devices, and whether something fits on them or not.
    allocator
        What `PYTORCH_ALLOC_CONF` sets.
    """

    question: Question
    told: Told
    said: str
    machine: Machine
    judged: bool
    allocator: AllocatorSettings


def allocator_settings(text: str | None) -> AllocatorSettings:
    """What `PYTORCH_ALLOC_CONF` sets: as given, else as this process has it.

    Raises
    ------
    BadInput
        If it cannot be read.
    """
    if text is None:
        text = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), "")
    return parse_settings(text)


def training(
    model: str,
    machine: Machine | None,
    settings: TrainingSettings,
    allocator: AllocatorSettings,
    *,
    ranks: int | None = None,
    steps: int = 2,
    revision: str | None = None,
    offline: bool = False,
) -> Asked:
    """Optimizer steps of a model.

    Parameters
    ----------
    machine
        A device for each rank; one is meant for each; None for no device in particular.
    ranks
        How many processes, where the devices do not say.

    Raises
    ------
    BadInput
        If the run cannot be as it is asked, or cannot be traced.
    """
    machine, judged = _machine(machine)
    machine = spread_over(machine, ranks)
    subject, fields = _found(model, revision, offline)
    run, _ = prepared(subject, machine, settings)
    question = train_question(fields, run, machine.devices[0], len(machine.devices), steps)
    notes = (*run.assumed, *subject.notes)
    told = Told(subject.model, run.settings.framework, "train", len(machine.devices), notes)
    return Asked(question, told, in_words(run.settings), machine, judged, allocator)


def generation(
    model: str,
    machine: Machine | None,
    settings: TrainingSettings,
    allocator: AllocatorSettings,
    *,
    prompt_len: int,
    new_tokens: int,
    revision: str | None = None,
    offline: bool = False,
) -> Asked:
    """A prompt and the tokens after it.

    Parameters
    ----------
    settings
        Of these the batch, the weights' dtype, how they are stored, attention and tensor-parallel ranks count.

    Raises
    ------
    BadInput
        If it cannot be traced.
    """
    machine, judged = _machine(machine)
    subject, fields = _found(model, revision, offline)
    question = generate_question(
        fields, settings, subject.architecture.dtype, machine.devices[0], prompt_len, new_tokens
    )
    told = Told(subject.model, "transformers", "generate", 1, tuple(subject.notes))
    said = f"{settings.micro_batch} × {prompt_len:,} tokens, {new_tokens:,} new ones"
    return Asked(question, told, said, machine, judged, allocator)


def script(
    words: Sequence[str], machine: Machine | None, allocator: AllocatorSettings, *, steps: int = 2
) -> Asked:
    """Someone's own program.

    Raises
    ------
    BadInput
        If it cannot be traced.
    """
    machine, judged = _machine(machine)
    # A program that no launcher starts is alone, however many devices there are.
    ranks = processes_of(list(variables_before(words)[1])).devices or len(machine.devices)
    machine = spread_over(replace(machine, devices=machine.devices[:ranks]), ranks)
    question = Question(Script(tuple(words), steps, ranks), card_of(machine.devices[0]))
    told = Told(" ".join(words), "torch", "train", ranks)
    return Asked(question, told, f"up to its optimizer step {steps}", machine, judged, allocator)


def answered(asked: Asked, progress: Callable[[Progress], None] = lambda _: None) -> Traced:
    """The trace and what it means. A program of someone's own is run.

    Raises
    ------
    BadInput
        If it cannot be traced, or fails by itself.
    """
    found = answered_all([asked], progress)[0]
    if isinstance(found, BadInput):
        raise found
    return found


def answered_all(
    asked: Sequence[Asked],
    progress: Callable[[Progress], None] = lambda _: None,
    at_once: int | None = None,
) -> list[Traced | BadInput]:
    """Traces, from before or from one child process for all, and what they mean; or why there is none.

    Parameters
    ----------
    at_once
        How many run at a time; None for one on each processor.

    Raises
    ------
    BadInput
        If torch or what else a trace needs is not installed.
    """
    keys = [cache.key_of(one.question) for one in asked]
    known: dict[str | int, Trace | BadInput] = {}
    open_: dict[str | int, Question] = {}
    for index, (one, key) in enumerate(zip(asked, keys, strict=True)):
        kept = cache.found(key) if key else None
        if kept is None:
            open_[key or index] = one.question
        elif key:
            known[key] = kept
    if open_:
        for name, trace in zip(open_, traced_all(list(open_.values()), progress, at_once), strict=True):
            known[name] = trace
            if isinstance(name, str) and isinstance(trace, Trace):
                cache.keep(name, trace)
    return [
        _meaning(one, known[key or index]) for index, (one, key) in enumerate(zip(asked, keys, strict=True))
    ]


def in_words(settings: TrainingSettings) -> str:
    """A run in a line."""
    precision, adapter, layout = settings.precision, settings.adapter, settings.layout
    parts = [
        f"{settings.micro_batch} × {settings.seq_len or 0:,} tokens",
        f"{precision.weights}" + (f" with {precision.compute} autocast" if precision.autocast else ""),
        settings.quantization.method if settings.quantization else "",
        f"{adapter.kind} of rank {adapter.rank}"
        if adapter and adapter.rank
        else adapter.kind
        if adapter
        else "",
        " ".join(part for part in (settings.optimizer.name, settings.optimizer.implementation) if part),
        "checkpoints" if settings.checkpointing.kind == "full" else "",
        settings.attention or "",
        layout.data if layout.data not in (None, "none") else "",
        f"tensor parallel {layout.tp}" if layout.tp > 1 else "",
    ]
    return ", ".join(part for part in parts if part)


def _machine(machine: Machine | None) -> tuple[Machine, bool]:
    """The machine, and whether it is one that something fits on or not."""
    if machine is not None:
        return machine, True
    usual = find_device(USUAL_DEVICE)
    return Machine((replace(usual, name="any device", usable_bytes=None, reported_bytes=None),)), False


def _found(model: str, revision: str | None, offline: bool) -> tuple[Subject, Mapping[str, Any]]:
    """The model, and the fields of its config.json.

    Raises
    ------
    BadInput
        If it has none: a GGUF file is no model of transformers.
    """
    checkpoint = locate(model, revision, offline)
    if checkpoint.config is None:
        raise BadInput(
            f"{model} has no config.json", "a trace runs transformers' model code, which is built from one"
        )
    return subject_of(checkpoint), checkpoint.config.fields


def _meaning(asked: Asked, trace: Trace | BadInput) -> Traced | BadInput:
    if isinstance(trace, BadInput):
        return trace
    told, machine = asked.told, asked.machine
    answer = estimate(trace, told, machine.devices, asked.allocator)
    memory = memory_of(machine.devices[0], told.ranks) if asked.judged else None
    return Traced(trace, answer, told.model, asked.said, asked.allocator, memory)
