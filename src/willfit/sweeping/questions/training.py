"""`run: train`: what `willfit train` answers, without what would make it fit."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from functools import partial

from willfit.speed.training_answer import training_speed_of
from willfit.surfaces.cli.commands.train import machine_asked
from willfit.surfaces.cli.training_options import training_settings
from willfit.sweeping.questions.models import model_of
from willfit.sweeping.questions.table import Group
from willfit.sweeping.questions.trying import tried
from willfit.sweeping.rows import Row, row_of
from willfit.training.estimate import estimate_alone


def check(given: Namespace) -> None:
    """Raise `BadInput` if an option cannot be read, whatever the model and the devices are."""
    training_settings(given)


def rows(groups: Sequence[Group], speed: bool) -> list[Row]:
    """Ask at each point of all groups; what is wrong is in its row."""
    return [tried(partial(_alone, given, gpu, speed), given.engine) for given, gpus in groups for gpu in gpus]


def _alone(given: Namespace, gpu: str | None, speed: bool) -> Row:
    given.gpu = gpu
    machine, settings = machine_asked(given), training_settings(given)
    subject, _ = model_of(given.model, None, given.revision, given.offline, None)
    answer = estimate_alone(subject, machine, settings)
    return row_of(answer, training_speed_of(subject, machine, settings) if speed else None)
