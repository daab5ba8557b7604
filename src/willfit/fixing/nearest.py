"""What would work where no edit of the command does: more devices of the kind, or a finer rounding of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from willfit.asking import find_subject
from willfit.engines.base import Machine, Question
from willfit.engines.table import ask
from willfit.errors import BadInput
from willfit.fixing.given import Given
from willfit.planning.options import COUNTS
from willfit.planning.which import together, which_devices
from willfit.quantities import format_bytes

#: Formats that checkpoints are published in, and types of GGUF files, the finest first.
_FORMATS = ("fp8", "awq", "nvfp4")
_TYPES = ("q8_0", "q6_k", "q5_k_m", "q4_k_m", "q3_k_m", "q2_k", "iq2_xxs")


def nearest(given: Given) -> tuple[str, ...]:
    """The fewest devices of the same kind that run it, and the finest format that fits, each in words."""
    return tuple(_nearest(given))


def _nearest(given: Given) -> Iterator[str]:
    device = given.run.machine.devices[0] if given.run.machine.devices else None
    if device is not None and not device.is_cpu:
        count = _training_devices(given) if given.run.launch.engine == "training" else _devices(given)
        if count is not None and count > given.devices:
            yield f"{count} x {device.name} instead of {given.devices}"
    if given.run.launch.engine != "training":
        name, size = _format(given)
        if name:
            yield f"the model in {name} ({format_bytes(size)} of weights)"


def _question(given: Given) -> Question:
    return Question(given.context, given.users, "auto", given.estimate.engine_version)


def _devices(given: Given) -> int | None:
    device = given.run.machine.devices[0]
    is_gguf = given.subject.gguf is not None
    found = which_devices(given.subject, _question(given), given.run.launch.engine, (device,), is_gguf)
    fitting = [one.option.count for one in found if one.option and one.option.verdict == "fits"]
    return min(fitting, default=None)


def _training_devices(given: Given) -> int | None:
    """The fewest over which weights and states can be shared (FSDP)."""
    from willfit.training.estimate import estimate_alone

    device = given.run.machine.devices[0]
    shared = replace(given.settings, layout=replace(given.settings.layout, data="fsdp2"))
    for count in COUNTS:
        if given.devices < count <= together(device):
            try:
                answer = estimate_alone(given.subject, Machine((device,) * count), shared)
            except BadInput:
                return None
            if answer.verdict == "fits":
                return count
    return None


def _format(given: Given) -> tuple[str, int]:
    """The finest format that fits, and its weights' bytes; an empty name if none does."""
    launch = given.run.launch
    for name in _TYPES if given.subject.gguf is not None else _FORMATS:
        try:
            subject, _ = find_subject(launch.model, name, launch.revision, True)
            answer = ask(launch.engine, subject, given.run.machine, _question(given))
        except BadInput:
            continue
        if answer.verdict == "fits":
            return name, subject.weight_bytes
    return "", 0
