"""Training steps whose peaks were traced: what each is, as a run."""

from __future__ import annotations

import json
import pathlib
from typing import TypedDict

from willfit.asking import find_subject, machine_of
from willfit.hardware.device import Device
from willfit.training.account import Account
from willfit.training.estimate import accounts_of, prepared
from willfit.training.run import Run
from willfit.training.settings import (
    AdapterSettings,
    CheckpointingSettings,
    PrecisionSettings,
    TrainingSettings,
)

POINTS = pathlib.Path(__file__).parents[1] / "data" / "traced_peaks.jsonl"

PRECISIONS = {
    "bf16": PrecisionSettings(weights="bf16", compute="bf16", autocast=False),
    "amp": PrecisionSettings(weights="fp32", compute="bf16", autocast=True),
    "fp32": PrecisionSettings(weights="fp32", compute="fp32", autocast=False),
}
METHODS = {"full": None, "lora": AdapterSettings(kind="lora", rank=16, targets=("all-linear",))}


class Point(TypedDict):
    """One step, on an A100."""

    model: str
    method: str
    checkpointing: str
    precision: str
    attention: str
    batch: int
    length: int
    requested_bytes: int


def read() -> list[Point]:
    """All that are recorded."""
    return [json.loads(line) for line in POINTS.read_text().splitlines()]


def settings_of(point: Point) -> TrainingSettings:
    """What is asked of a point."""
    return TrainingSettings(
        framework="transformers",
        version="5.23.0",
        micro_batch=point["batch"],
        seq_len=point["length"],
        adapter=METHODS[point["method"]],
        precision=PRECISIONS[point["precision"]],
        checkpointing=CheckpointingSettings(kind=point["checkpointing"]),
        attention=point["attention"],
        versions={"torch": "2.13.0", "peft": "0.21.2", "accelerate": "1.15.0"},
    )


def prepared_run(point: Point) -> tuple[Run, Device]:
    """The run with nothing open, and its device."""
    machine = machine_of("a100-80g")
    run, _ = prepared(find_subject(point["model"], None, None, True)[0], machine, settings_of(point))
    return run, machine.devices[0]


def account_of(point: Point) -> Account:
    """What the closed form says."""
    machine = machine_of("a100-80g")
    subject = find_subject(point["model"], None, None, True)[0]
    run, ranks = prepared(subject, machine, settings_of(point))
    return accounts_of(run, subject, machine, ranks)[0]
