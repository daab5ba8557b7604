"""A model's routed experts apart from the rest of it, for engines that hold them somewhere else."""

from __future__ import annotations

from dataclasses import dataclass, replace

from willfit.architectures.model import Tensor
from willfit.engines.base import Subject


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix of an expert, as often as a model has it.

    Attributes
    ----------
    rows, columns
        Output and input features of one expert's.
    experts, layers
        How many experts have it in a layer, and how many layers.
    by_rows
        Whether ranks divide its rows, else its columns.
    """

    rows: int
    columns: int
    experts: int
    layers: int
    by_rows: bool


def expert_matrices(subject: Subject) -> tuple[Matrix, ...]:
    """The matrices of a model's routed experts, those of modules that predict further tokens left out."""
    found = []
    for line in subject.lines:
        tensor = line.tensor
        if tensor.part != "experts" or tensor.kind != "linear" or len(tensor.shape) < 2:
            continue
        *outer, rows, columns = tensor.shape
        axis = tensor.split.axis - len(outer) if tensor.split is not None else 0
        count = tensor.copies * (outer[0] if outer else 1)
        found.append(Matrix(rows, columns, count, line.times, axis == 0))
    return tuple(found)


def expert_bytes(subject: Subject) -> int:
    """Bytes of a model's routed experts as they are stored."""
    return sum(line.bytes for line in subject.lines if line.tensor.part == "experts")


def expert_layers(subject: Subject) -> int:
    """How many layers have routed experts."""
    return sum(
        any(tensor.part == "experts" for tensor in layer.tensors) for layer in subject.architecture.layers
    )


def most_experts(subject: Subject) -> int:
    """Routed experts of the layer that has the most; 0 without any."""
    return max((matrix.experts for matrix in expert_matrices(subject)), default=0)


def with_experts(subject: Subject, kept: int) -> Subject:
    """A model with so many routed experts in each layer; those that are left lie elsewhere."""
    other: dict[int, Tensor | None] = {}

    def of(tensor: Tensor) -> Tensor | None:
        if tensor.part != "experts":
            return tensor
        if id(tensor) not in other:
            other[id(tensor)] = _with(tensor, kept)
        return other[id(tensor)]

    layers = {
        id(layer): replace(
            layer, tensors=tuple(one for tensor in layer.tensors if (one := of(tensor)) is not None)
        )
        for layer, _ in subject.architecture.blocks
    }
    architecture = replace(
        subject.architecture, layers=tuple(layers[id(layer)] for layer in subject.architecture.layers)
    )
    lines = []
    for line in subject.lines:
        tensor = of(line.tensor)
        if tensor is not None:
            size = line.bytes * tensor.elements // max(1, line.tensor.elements)
            lines.append(line if tensor is line.tensor else replace(line, tensor=tensor, bytes=size))
    return replace(subject, architecture=architecture, lines=tuple(lines))


def _with(tensor: Tensor, kept: int) -> Tensor | None:
    if not kept:
        return None
    if tensor.copies > 1:
        return replace(tensor, copies=min(kept, tensor.copies))
    return replace(tensor, shape=(min(kept, tensor.shape[0]), *tensor.shape[1:]))
