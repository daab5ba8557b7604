"""What a launch command says, once read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from willfit.errors import BadInput


@dataclass(frozen=True, slots=True)
class DraftModel:
    """A second model that a command names, which drafts tokens for the first.

    Attributes
    ----------
    model
        As the command names it.
    method
        How it drafts: `eagle`, `eagle3`, `dflash` and `medusa` heads are not models by themselves.
    revision
        The revision that is pinned; None for the newest.
    """

    model: str
    method: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """A launch command, understood.

    Attributes
    ----------
    engine
        Name of the engine module that answers it.
    model
        The model as the command names it.
    revision
        The revision that it pins; None for the newest.
    settings
        The engine's own `Settings`.
    format_name
        Format that the command asks the engine to quantize to while loading; None to load as stored.
    other_files
        The format is that of the files that the command names, which were made from the model's own.
    devices
        How many devices the command lets the engine see; None for all that there are.
    visible
        Numbers of these devices, where it names them.
    notes
        What was understood but is not counted, and what was assumed.
    draft
        The model that drafts; None without.
    config
        Config of the model, as Hugging Face would write it, where the command gives the model's sizes and
        no checkpoint; None otherwise. `model` is then what to call it.
    """

    engine: str
    model: str
    revision: str | None
    settings: Any
    format_name: str | None = None
    devices: int | None = None
    notes: tuple[str, ...] = ()
    draft: DraftModel | None = None
    other_files: bool = False
    visible: tuple[int, ...] = ()
    config: Mapping[str, Any] | None = None


class OnlyServes(BadInput):
    """A command that starts a server alone.

    Attributes
    ----------
    variables
        What is set for it.
    version
        The version that it pins.
    """

    def __init__(self, variables: Mapping[str, str], version: str | None) -> None:
        super().__init__(
            "ollama serve: a server loads no model until it is asked for one",
            "put its variables in front of ollama run MODEL: OLLAMA_NUM_PARALLEL=4 ollama run llama3.2",
        )
        self.variables = dict(variables)
        self.version = version
