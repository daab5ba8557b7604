"""Which kinds of questions there are."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, Protocol

from willfit.sweeping.options import Run
from willfit.sweeping.rows import Row

_MODULES: dict[Run, str] = {"estimate": "serving", "train": "training", "trace": "traces"}


class Group(NamedTuple):
    """Points that differ in their devices only."""

    given: Namespace
    gpus: tuple[str | None, ...]


class Questions(Protocol):
    """A module that asks one kind of question."""

    def check(self, given: Namespace) -> None:
        """Raise `BadInput` if an option cannot be read, whatever the model and the devices are."""

    def rows(self, groups: Sequence[Group], speed: bool) -> list[Row]:
        """Ask at each point of all groups, in their order; what is wrong is in its row."""


def questions_of(run: Run) -> Questions:
    """The module of a kind of question."""
    module: Questions = import_module(f"willfit.sweeping.questions.{_MODULES[run]}")
    return module
