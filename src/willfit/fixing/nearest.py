"""What would work where no edit of the command does: more devices of the kind, or a finer rounding of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from willfit.asking import find_subject
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.table import ask
from willfit.errors import BadInput
from willfit.fixing.given import Given
from willfit.planning.formats import ladder
from willfit.planning.search.layouts import COUNTS, together
from willfit.planning.which import which_devices
from willfit.quantities import format_bytes


def nearest(given: Given) -> tuple[str, ...]:
    """The fewest devices of the same kind that run it, and the finest format that fits, each in words."""
    return tuple(_nearest(given))


def _nearest(given: Given) -> Iterator[str]:
    device = given.run.machine.devices[0] if given.run.machine.devices else None
    training = given.run.launch.engine == "training"
    if device is not None and not device.is_cpu:
        count, sure = _training_devices(given) if training else _devices(given, given.subject)
        if count > given.devices:
            yield f"{count} × {device.name} instead of {given.devices}" + ("" if sure else ", most likely")
    if not training:
        yield from _formats(given)


def _question(given: Given) -> Question:
    return Question(given.context, given.users, "auto", given.estimate.engine_version)


def _devices(given: Given, subject: Subject) -> tuple[int, bool]:
    """The fewest devices of the kind that run a model, and whether they surely do; 0 if no number does."""
    device, is_gguf = given.run.machine.devices[0], subject.gguf is not None
    found = which_devices(subject, _question(given), given.run.launch.engine, (device,), is_gguf)
    fitting = [one.way for one in found if one.way is not None]
    return (fitting[0].count, fitting[0].verdict == "fits") if fitting else (0, False)


def _training_devices(given: Given) -> tuple[int, bool]:
    """The fewest that do with weights and states shared (FSDP), and whether they surely do; 0 if no number does."""
    from willfit.training.estimate import estimate_alone

    device = given.run.machine.devices[0]
    shared = replace(given.settings, layout=replace(given.settings.layout, data="fsdp2"))
    for count in COUNTS:
        if given.devices < count <= together(device):
            try:
                answer = estimate_alone(given.subject, Machine((device,) * count), shared)
            except BadInput:
                break
            if answer.verdict == "fits":
                return count, True
    return 0, False


def _formats(given: Given) -> Iterator[str]:
    """The finest format that fits on the devices that there are, else on the fewest of their kind."""
    launch, machine = given.run.launch, given.run.machine
    more = ""
    for name in [name for name, _ in ladder(launch.engine) if name is not None]:
        try:
            subject, _ = find_subject(launch.model, name, launch.revision, True)
            answer = ask(launch.engine, subject, machine, _question(given))
            count, sure = (0, False) if more or not machine.devices else _devices(given, subject)
        except BadInput:
            continue
        what = f"a checkpoint in {name}, {format_bytes(subject.weight_bytes)} of weights"
        if answer.verdict == "fits":
            yield what
            return
        if sure:
            more = f"{what}, on {count} × {machine.devices[0].name}"
    if more:
        yield more
