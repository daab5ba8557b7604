"""What may be changed in a launch command, whatever the way it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class SetFlag:
    """A flag is given a value.

    Attributes
    ----------
    flag
        As it is spelled where the command does not have it yet.
    value
        Behind it; None for a flag that stands alone.
    """

    flag: str
    value: str | None = None


@dataclass(frozen=True, slots=True)
class DropFlag:
    """A flag is left out, wherever it stands."""

    flag: str


@dataclass(frozen=True, slots=True)
class SetVariable:
    """A variable is set for the program."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class SetWord:
    """`name=value`, as torchtune and LLaMA-Factory read settings behind their files."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class SetParameter:
    """A PARAMETER of the Modelfile that the command names."""

    name: str
    value: str


Change: TypeAlias = SetFlag | DropFlag | SetVariable | SetWord | SetParameter
