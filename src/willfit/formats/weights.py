"""The bytes of a model's weights: an architecture's tensors, stored as a recipe says.

Equal layers are counted once and multiplied, unless the recipe tells them apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from willfit.architectures.model import Architecture, Layer, Tensor
from willfit.formats.base import Format
from willfit.formats.recipe import Recipe


@dataclass(frozen=True, slots=True)
class WeightLine:
    """Tensors that are stored alike.

    Attributes
    ----------
    tensor
        One of them, all its copies included.
    times
        In how many layers it occurs.
    format
        How it is stored.
    bytes
        Bytes over all copies and layers.
    """

    tensor: Tensor
    times: int
    format: Format
    bytes: int

    def on_rank(self, ranks: int, without: frozenset[str] = frozenset()) -> int:
        """Bytes that one of `ranks` tensor-parallel ranks holds.

        Each rank stores its part of the tensor as a tensor of its own, so scales and zero points divide
        with the axis that they run along and are repeated otherwise.

        Parameters
        ----------
        ranks
            Degree of tensor parallelism.
        without
            Suffixes of pieces that are stored but not loaded (`g_idx` of unordered GPTQ).
        """
        if ranks == 1 and not without:
            return self.bytes
        shape = rank_shape(self.tensor, ranks)
        if without:
            size = sum(piece.bytes for piece in self.format.pieces(shape) if piece.suffix not in without)
        else:
            size = self.format.bytes(shape)
        return size * self.tensor.copies * self.times


def rank_shape(tensor: Tensor, ranks: int) -> tuple[int, ...]:
    """Shape of the part of a tensor that one of `ranks` tensor-parallel ranks holds (the fullest one)."""
    split = tensor.split
    if split is None or ranks == 1:
        return tensor.shape
    size = tensor.shape[split.axis]
    sections = split.sections or ((size, split.units),)
    part = sum(width // units * max(1, -(-units // ranks)) for width, units in sections)
    return (*tensor.shape[: split.axis], part, *tensor.shape[split.axis + 1 :])


def weight_lines(architecture: Architecture, recipe: Recipe, mtp: bool = True) -> tuple[WeightLine, ...]:
    """All tensors of a checkpoint with their formats and bytes, equal ones together.

    Parameters
    ----------
    architecture
        What the model is. A head that shares the embedding is stored once.
    recipe
        How its tensors are stored.
    mtp
        Whether to include the multi-token-prediction modules.
    """
    counts: dict[tuple[int, int], int] = {}
    firsts: dict[tuple[int, int], tuple[Tensor, Format]] = {}
    for name, tensor, times in _named(architecture, recipe.by_layer, mtp):
        stored = recipe.format_of(name, tensor)
        key = id(tensor), id(stored)
        if key in counts:
            counts[key] += times
        else:
            counts[key] = times
            firsts[key] = tensor, stored
    sizes: dict[tuple[int, tuple[int, ...]], int] = {}
    lines = []
    for key, (tensor, stored) in firsts.items():
        size = sizes.get((key[1], tensor.shape))
        if size is None:
            size = sizes[(key[1], tensor.shape)] = stored.bytes(tensor.shape)
        times = counts[key]
        lines.append(WeightLine(tensor, times, stored, size * tensor.copies * times))
    return tuple(lines)


def lines_of(entries: Iterable[tuple[Tensor, Format, int]]) -> tuple[WeightLine, ...]:
    """Tensors with their formats and the bytes of each, those that are stored alike together."""
    times: Counter[tuple[int, Format, int]] = Counter()
    tensors: dict[int, Tensor] = {}
    for tensor, stored, size in entries:
        tensors[id(tensor)] = tensor
        times[id(tensor), stored, size] += 1
    return tuple(
        WeightLine(tensors[key], count, stored, size * count) for (key, stored, size), count in times.items()
    )


def weight_bytes(
    architecture: Architecture,
    recipe: Recipe,
    mtp: bool = True,
    ranks: int = 1,
    without: frozenset[str] = frozenset(),
) -> int:
    """Bytes of all weights, or of those that one of `ranks` tensor-parallel ranks holds.

    Parameters
    ----------
    architecture, recipe, mtp
        See `weight_lines`.
    ranks, without
        See `WeightLine.on_rank`.
    """
    return sum(line.on_rank(ranks, without) for line in weight_lines(architecture, recipe, mtp))


def stored_elements(architecture: Architecture, recipe: Recipe, mtp: bool = True) -> dict[str, int]:
    """Stored elements by dtype, packed ones counted as stored, as a safetensors header has them."""
    counts: dict[str, int] = {}
    for line in weight_lines(architecture, recipe, mtp):
        for piece in line.format.pieces(line.tensor.shape):
            elements = piece.elements * line.tensor.copies * line.times
            counts[piece.dtype] = counts.get(piece.dtype, 0) + elements
    return counts


def _named(architecture: Architecture, by_layer: bool, mtp: bool) -> Iterator[tuple[str, Tensor, int]]:
    """Full name, tensor and number of occurrences; distinct layers once unless `by_layer`."""
    if by_layer:
        for name, tensor in architecture.tensors(mtp):
            yield name, tensor, 1
        return
    for tensor in (*architecture.embeddings, *architecture.shared):
        yield tensor.name, tensor, 1
    for layers, blocks in (
        (architecture.encoder, architecture.encoder_blocks),
        (architecture.layers, architecture.blocks),
    ):
        for layer, times in blocks:
            index = str(_first_index(layers, layer))
            for tensor in layer.tensors:
                yield tensor.name.replace("{layer}", index), tensor, times
    for tensor in architecture.head:
        yield tensor.name, tensor, 1
    for tower in architecture.towers:
        for tensor in tower.tensors:
            yield tensor.name, tensor, 1
    if mtp:
        for tensor in architecture.mtp:
            yield tensor.name, tensor, 1


def _first_index(layers: tuple[Layer, ...], layer: Layer) -> int:
    return next(index for index, other in enumerate(layers) if other is layer)
