"""An operation that was called, and what its kernel takes from the allocator beside its results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from willfit.tracing.question import Card

FLOAT = 4
LONG = 8


@dataclass(frozen=True, slots=True)
class Workspace:
    """Bytes that a kernel takes by itself.

    Attributes
    ----------
    nbytes
        As they are asked for.
    name
        What they are for, in the words of the source.
    kept
        They stay with the library, one for each thread and stream: taken by the first operation that asks, and by no
        other of the same name. Else they are given back before the operation returns.
    brief
        They are given back before the next of the same operation is taken, not only at its end.
    """

    nbytes: int
    name: str
    kept: bool = False
    brief: bool = False


@dataclass(frozen=True, slots=True)
class Called:
    """An operation with its arguments, in the order of its schema, and its result."""

    args: Sequence[Any]
    named: Mapping[str, Any]
    result: Any
    card: Card

    def tensor(self, place: int) -> torch.Tensor:
        """A tensor among the arguments."""
        found = self.args[place]
        assert isinstance(found, torch.Tensor)
        return found

    def get(self, place: int, name: str, default: Any) -> Any:
        """An argument that may be left out."""
        return self.args[place] if place < len(self.args) else self.named.get(name, default)


def events(workspaces: Iterable[Workspace]) -> Iterator[tuple[Workspace, bool]]:
    """What happens in an operation, in order: a workspace and whether it is taken (or given back)."""
    held: list[Workspace] = []
    for workspace in workspaces:
        if held and held[-1].brief:
            yield held.pop(), False
        yield workspace, True
        if not workspace.kept:
            held.append(workspace)
    for workspace in held:
        yield workspace, False


def rounded(size: int, step: int) -> int:
    """`size` rounded up to a multiple."""
    return -(-size // step) * step


def copied(tensor: torch.Tensor, name: str) -> list[Workspace]:
    """What `contiguous` takes: nothing if the tensor is so."""
    if tensor.is_contiguous():
        return []
    return [Workspace(tensor.numel() * tensor.element_size(), name)]
