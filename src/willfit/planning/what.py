"""Which bundled models a machine runs, the largest first, each in the finest format that fits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from willfit.checkpoints.catalogue import CatalogueEntry, catalogue_ids, find
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.table import ask, runs_vllm
from willfit.errors import BadInput
from willfit.estimate import Estimate
from willfit.planning.formats import ladder
from willfit.speed.answer import Speed, speed_of

Task = Literal["chat", "code", "embed", "vision"]
TASKS: tuple[Task, ...] = ("chat", "code", "embed", "vision")

#: Cards that people have at home, by the beginnings of their names.
_AT_HOME = ("GeForce", "Radeon", "Arc", "TITAN", "Ryzen", "device with")

_CODE = re.compile(r"code|coder|devstral|starcoder", re.IGNORECASE)
_EMBED = re.compile(r"embed|bge-|gte-|e5-|rerank|minilm", re.IGNORECASE)
#: Classes of encoders.
_ENCODER = re.compile(r"Bert|Roberta|MPNet|Deberta|Electra|Encoder")
#: Models that only continue text.
_RAW = re.compile(r"(-base|-pt|-hf|-v0\.\d)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Runs:
    """A model that a machine runs.

    Attributes
    ----------
    subject
        In the finest format that fits.
    parameters
        Of the model.
    estimate, speed
        Its answer; None for the speed where that cannot be said.
    alike
        Other bundled models of the same sizes.
    """

    subject: Subject
    parameters: int
    estimate: Estimate
    speed: Speed | None
    alike: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Candidate:
    id: str
    parameters: int
    alike: tuple[str, ...]


def usual_engine(machine: Machine) -> str:
    """The engine that people use on such a machine."""
    devices = machine.devices
    if all(device.vendor == "Apple" for device in devices):
        return "mlx"
    at_home = all(device.name.startswith(_AT_HOME) or device.is_cpu for device in devices)
    return "llama.cpp" if at_home or not runs_vllm(machine) else "vllm"


def what_runs(
    machine: Machine,
    question: Question,
    engine: str,
    subject_of: Callable[[str, str | None], Subject],
    task: Task = "chat",
    most: int = 20,
) -> Iterator[Runs]:
    """Bundled models that run on a machine, the largest first.

    Parameters
    ----------
    machine, question, engine
        Where, for how much, and by whom.
    subject_of
        Finds a model as it would be stored.
    task
        What it shall be good for, as far as its name and config say.
    most
        So many models.
    """
    room = sum(device.usable_bytes or 0 for device in machine.devices)
    found = 0
    for candidate in _candidates(task):
        run = _finest(candidate, machine, question, engine, subject_of, room)
        if run is not None:
            found += 1
            yield run
        if found == most:
            return


def _finest(
    candidate: _Candidate,
    machine: Machine,
    question: Question,
    engine: str,
    subject_of: Callable[[str, str | None], Subject],
    room: int,
) -> Runs | None:
    """A model in the finest format that surely fits, else in the finest that may; None if it fits in none."""
    tight: Runs | None = None
    for format_name, bits in ladder(engine):
        if candidate.parameters * bits / 8 > room:
            continue
        try:
            subject = subject_of(candidate.id, format_name)
            answer = ask(engine, subject, machine, question)
        except BadInput:
            continue  # not a format for this model
        if answer.verdict not in ("fits", "tight"):
            continue
        speed = speed_of(subject, machine, answer)
        run = Runs(subject, candidate.parameters, answer, speed, candidate.alike)
        if answer.verdict == "fits":
            return run
        tight = tight or run
    return tight


def _candidates(task: Task) -> list[_Candidate]:
    """Models that are stored in full, those of the same sizes together, the largest first."""
    groups: dict[str, list[CatalogueEntry]] = {}
    for name in catalogue_ids():
        entry = find(name)
        if entry is None or "mirror_of" in entry.facts or "quantization_config" in entry.config:
            continue
        if task in tasks_of(entry):
            groups.setdefault(json.dumps(entry.config, sort_keys=True), []).append(entry)
    found = []
    for entries in groups.values():
        size = next((size for size in map(_parameters, entries) if size), 0)
        if size:
            first, *others = _named(entries)
            found.append(_Candidate(first, size, tuple(others)))
    return sorted(found, key=lambda one: -one.parameters)


def _parameters(entry: CatalogueEntry) -> int:
    return int(entry.facts.get("meta_params") or entry.facts.get("params_total") or 0)


def _named(entries: Sequence[CatalogueEntry]) -> list[str]:
    """Ids, the shortest first: what others are tuned from."""
    return sorted((entry.id for entry in entries), key=lambda name: (len(name), name))


def tasks_of(entry: CatalogueEntry) -> set[Task]:
    """What a model is good for, as far as its name and config say."""
    config = entry.config
    classes = " ".join(config.get("architectures") or ())
    if _EMBED.search(entry.id) or _ENCODER.search(classes):
        return {"embed"}
    found: set[Task] = set() if _RAW.search(entry.id) else {"chat"}
    if _CODE.search(entry.id):
        found = {"code"}
    if any(key.startswith("vision") for key in config):
        found.add("vision")
    return found
