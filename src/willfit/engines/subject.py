"""From a checkpoint to what an engine is asked about: architecture, recipe and stored tensors."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from math import prod

from willfit.architectures.build import build
from willfit.architectures.gguf import architecture_of
from willfit.architectures.model import Architecture, Tensor
from willfit.checkpoints.checkpoint import Checkpoint
from willfit.checkpoints.config import Config
from willfit.checkpoints.gguf import GgufHeader
from willfit.checkpoints.safetensors import StoredTensor
from willfit.engines.base import Subject
from willfit.errors import BadInput
from willfit.formats.base import Format, Piece
from willfit.formats.ggml import Ggml
from willfit.formats.recipe import Recipe
from willfit.formats.recognise import recipe_for, recipe_named
from willfit.formats.weights import WeightLine, weight_lines
from willfit.quantities import format_bytes

_EXPERT = re.compile(r"(experts\.)\d+\.")


@dataclass(frozen=True, slots=True)
class AsStored:
    """The format of a tensor whose bytes were read from a file header; a part of it takes its share."""

    name: str
    elements: int
    stored_bytes: int

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        return (Piece("weight", self.name, shape, self.bytes(shape)),)

    def bytes(self, shape: tuple[int, ...]) -> int:
        """See `Format.bytes`."""
        return self.stored_bytes * prod(shape) // self.elements


def subject_of(checkpoint: Checkpoint, format_name: str | None = None) -> Subject:
    """The subject that a checkpoint holds.

    Parameters
    ----------
    checkpoint
        What was read.
    format_name
        How the weights shall be stored, if not as they are (`fp8`, `awq`, `nf4`, ...).

    Raises
    ------
    BadInput
        If the layers cannot be known, or the format is not known or cannot be applied.
    """
    if checkpoint.gguf is not None:
        if format_name is not None:
            raise BadInput(
                f"{checkpoint.model} is a GGUF file: its tensors are as they are", "leave out --format"
            )
        return _from_gguf(checkpoint.model, checkpoint.gguf, checkpoint.notes)
    if checkpoint.config is None:
        raise BadInput(
            f"{checkpoint.model}: there is no config.json beside the tensors, so the layers are not known",
            "give the directory that holds both",
        )
    subject = subject_from_config(checkpoint.model, checkpoint.config, format_name, checkpoint.notes)
    if checkpoint.tensors is not None and format_name is None:
        return _from_headers(subject, checkpoint.tensors)
    return subject


def subject_from_config(
    model: str, config: Config, format_name: str | None = None, notes: tuple[str, ...] = ()
) -> Subject:
    """The subject that a config describes, its weights stored as the config, or `format_name`, says.

    Raises
    ------
    BadInput
        If the config lacks a field, or the format is not known.
    """
    architecture = build(config)
    dtype = architecture.dtype
    recipe = (
        recipe_for(config, dtype) if format_name is None else recipe_named(format_name, dtype, architecture)
    )
    return Subject(
        model, architecture, recipe, weight_lines(architecture, recipe), notes=(*notes, *architecture.notes)
    )


def _from_gguf(model: str, header: GgufHeader, notes: tuple[str, ...]) -> Subject:
    architecture = architecture_of(header)
    formats = {tensor.name: (Ggml(tensor.type), tensor.bytes) for tensor in header.tensors}
    grouped: dict[tuple[int, Format], list[int]] = {}
    tensors: dict[int, Tensor] = {}
    for name, tensor in architecture.tensors():
        stored, size = formats[name]
        tensors[id(tensor)] = tensor
        grouped.setdefault((id(tensor), stored), []).append(size)
    lines = tuple(
        WeightLine(tensors[key], len(sizes), stored, sum(sizes)) for (key, stored), sizes in grouped.items()
    )
    types = Counter(
        line.format.name for line in lines for _ in range(line.times) if len(line.tensor.shape) > 1
    )
    main = types.most_common(1)[0][0] if types else "F16"
    return Subject(model, architecture, Recipe(main, Ggml("F16")), lines, from_headers=True, notes=notes)


def _from_headers(subject: Subject, stored: tuple[StoredTensor, ...]) -> Subject:
    """Replace what the recipe implies by what the file headers say."""
    known = _by_stem(subject.architecture)
    sizes: dict[str, int] = {}
    dtypes: dict[str, str] = {}
    unknown_bytes = unknown = 0
    owner: dict[str, Tensor] = {}
    for item in stored:
        stem = _EXPERT.sub(r"\1{expert}.", item.name).rpartition(".")[0]
        tensor = known.get(_EXPERT.sub(r"\1{expert}.", item.name)) or known.get(stem)
        if tensor is None:
            if not _is_ignored(item.name, subject.architecture):
                unknown += 1
                unknown_bytes += item.bytes
            continue
        key = stem if known.get(stem) is tensor else item.name
        owner[key] = tensor
        sizes[key] = sizes.get(key, 0) + item.bytes
        if len(item.shape) > 1 or key not in dtypes:
            dtypes[key] = item.dtype
    grouped: dict[tuple[int, str, int], int] = {}
    tensors: dict[int, Tensor] = {}
    for key, tensor in owner.items():
        tensors[id(tensor)] = tensor
        group = (id(tensor), dtypes[key], sizes[key])
        grouped[group] = grouped.get(group, 0) + 1
    lines = [
        WeightLine(tensors[key], times, AsStored(dtype, tensors[key].elements, size), size * times)
        for (key, dtype, size), times in grouped.items()
    ]
    notes = list(subject.notes)
    if unknown:
        notes.append(
            f"{unknown} stored tensors ({format_bytes(unknown_bytes)}) are not part of the architecture as it "
            "is known; they are counted as weights"
        )
        extra = Tensor("(other tensors)", (unknown_bytes,), "mlp", "other")
        lines.append(
            WeightLine(extra, 1, AsStored("bytes", unknown_bytes or 1, unknown_bytes), unknown_bytes)
        )
    if not lines:
        raise BadInput(f"{subject.model}: none of the stored tensors belongs to the config's architecture")
    found = {id(tensor) for tensor in owner.values()}
    missing = sum(1 for _, tensor in subject.architecture.tensors(mtp=False) if _lacks(tensor, found))
    if missing:
        notes.append(f"{missing} tensors that the config implies are not in the files")
    return Subject(
        subject.model,
        subject.architecture,
        subject.recipe,
        tuple(lines),
        from_headers=True,
        notes=tuple(notes),
    )


def _lacks(tensor: Tensor, found: set[int]) -> bool:
    return tensor.kind != "buffer" and id(tensor) not in found


def _by_stem(architecture: Architecture) -> dict[str, Tensor]:
    """Tensors by full name, and linear weights also by the module's name: `...q_proj` owns `...q_proj.scales`."""
    known: dict[str, Tensor] = {}
    for name, tensor in architecture.tensors():
        known[name] = tensor
        if tensor.kind == "linear" and name.endswith(".weight"):
            known[name.removesuffix(".weight")] = tensor
    return known


def _is_ignored(name: str, architecture: Architecture) -> bool:
    """A head stored although it is tied, and buffers that are computed anew."""
    return (architecture.tied and name.startswith("lm_head")) or name.endswith(
        ("inv_freq", "position_ids", ".masked_bias", ".attn.bias")
    )
