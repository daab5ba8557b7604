"""Subjects that are GGUF files: read, or predicted from a config. Both start from a header."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from willfit.architectures.gguf import architecture_of
from willfit.architectures.gguf.tensors import outer_part, part_of, record
from willfit.architectures.model import Architecture, Tensor
from willfit.checkpoints.config import Config
from willfit.checkpoints.gguf import GgufHeader
from willfit.conversion.predict import predict
from willfit.engines.base import Subject
from willfit.file_types import Quantization
from willfit.formats.ggml import Ggml
from willfit.formats.recipe import Recipe
from willfit.formats.weights import WeightLine, lines_of

#: Share of a token table that scales of other tensors, which count as parameters, may make.
_TOLERANCE = 0.01


def subject_of_file(model: str, header: GgufHeader, notes: tuple[str, ...] = ()) -> Subject:
    """The subject that a GGUF file holds.

    Raises
    ------
    BadInput
        If the file holds no language model, or metadata that is needed to size it is missing.
    """
    architecture = architecture_of(header)
    lines = _lines(architecture, header)
    sizes: Counter[str] = Counter()
    for line in lines:
        if len(line.tensor.shape) > 1:
            sizes[line.format.name] += line.bytes
    main = sizes.most_common(1)[0][0] if sizes else "F16"
    return Subject(
        model, architecture, Recipe(main, Ggml("F16")), lines, from_headers=True, notes=notes, gguf=header
    )


def subject_of_prediction(
    model: str,
    config: Config,
    architecture: Architecture,
    quant: Quantization,
    *,
    stored_head: bool = False,
    notes: tuple[str, ...] = (),
) -> Subject:
    """The subject that a model would be as a GGUF file; see `conversion.predict`.

    Where llama.cpp does not read the model, its own architecture says what layers keep; the tensors are named by role.

    Raises
    ------
    BadInput
        If the config lacks a field.
    """
    made = predict(config, quant, architecture, stored_head=stored_head)
    header = made.header
    if made.runs:
        read = architecture_of(header)
        family = architecture.family if architecture.family == "generic" else read.family
        held = replace(read, class_names=architecture.class_names, family=family)
        lines = _lines(read, header)
    else:
        held = replace(architecture, towers=())
        lines = _by_role(header, len(architecture.layers))
    own = sum(line.bytes for line in lines)
    return Subject(
        model,
        held,
        Recipe(f"gguf {quant.label}", Ggml("F16")),
        lines,
        notes=(*notes, *architecture.notes, *made.notes),
        gguf=header,
        bounds=None if made.bytes == (own, own) else made.bytes,
    )


def counts_head(architecture: Architecture, stored: int | None) -> bool:
    """Whether a checkpoint of so many parameters must hold a head that is the same as the token table.

    Parameters
    ----------
    stored
        What its files hold, if that is known.
    """
    table = architecture.vocab_size * architecture.hidden_size
    beyond = (stored or 0) - architecture.parameters
    return architecture.tied and abs(beyond - table) <= _TOLERANCE * table


def _lines(architecture: Architecture, header: GgufHeader) -> tuple[WeightLine, ...]:
    formats = {tensor.name: (Ggml(tensor.type), tensor.bytes) for tensor in header.tensors}
    return lines_of((tensor, *formats[name]) for name, tensor in architecture.tensors())


def _by_role(header: GgufHeader, layers: int) -> tuple[WeightLine, ...]:
    """The lines of a file whose metadata would not be understood."""
    records: dict[tuple[str, tuple[int, ...]], Tensor] = {}
    entries = []
    for tensor in header.tensors:
        stack, _, rest = tensor.name.partition("blk.")
        index, _, leaf = rest.partition(".")
        key = (f"{stack}blk.{{layer}}.{leaf}" if rest else tensor.name, tensor.ne)
        if key not in records:
            part = part_of(leaf) if rest else outer_part(tensor.name)
            records[key] = record(tensor, part, key[0])
        found = records[key]
        if rest and not stack and int(index) >= layers:
            found = records.setdefault((f"mtp {key[0]}", tensor.ne), replace(found, part="mtp"))
        entries.append((found, Ggml(tensor.type), tensor.bytes))
    return lines_of(entries)
