"""From a checkpoint to what an engine is asked about: architecture, recipe and stored tensors."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod

from willfit.architectures.build import build
from willfit.architectures.model import Architecture, Part, Tensor
from willfit.checkpoints.checkpoint import Checkpoint
from willfit.checkpoints.config import Config
from willfit.checkpoints.safetensors import StoredTensor
from willfit.engines.base import Subject
from willfit.engines.gguf_files import counts_head, subject_of_file, subject_of_prediction
from willfit.engines.matching import Matcher
from willfit.errors import BadInput
from willfit.file_types import named_file_type
from willfit.formats.base import Format, Piece
from willfit.formats.plain import Plain
from willfit.formats.recipe import Recipe
from willfit.formats.recognise import recipe_for, recipe_named
from willfit.formats.weights import lines_of, weight_lines
from willfit.quantities import DTYPE_BYTES, format_bytes

#: What to say where no list of files was at hand.
_BY_NAME = "taken for a model of vectors by its name; engines look for sentence-transformers' modules.json"
#: What a format leaves open: the digits of a quantization state's text, scales that are single numbers.
_OPEN_BYTES = 64
#: An index and a config that differ by more than this do not describe the same files.
_TOLERANCE = 0.01
#: Computed anew when a model is loaded: positions, rotary frequencies, causal masks.
_COMPUTED = re.compile(
    r"(inv_freq|position_ids|masked_bias|att(n|ention)\.bias|(cos|sin)_cached|causal_mask)$"
)
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
_MODALITIES: tuple[tuple[Part, re.Pattern[str]], ...] = (
    ("mtp", re.compile(r"mtp|nextn|eagle")),
    ("vision", re.compile(r"visual|vision|image|mm_projector|multi_modal_projector")),
    ("audio", re.compile(r"audio|speech")),
    ("experts", re.compile(r"experts\.")),
    ("head", re.compile(r"lm_head|score\.|classifier")),
    ("embedding", re.compile(r"embed|wte|wpe")),
    ("attention", re.compile(r"att")),
)


@dataclass(frozen=True, slots=True)
class AsStored:
    """The format of a tensor whose bytes were read from a file header; a part of it takes its share.

    Attributes
    ----------
    name
        The stored dtype.
    elements
        Logical elements of the tensor, all copies.
    stored_bytes
        What they take in the files.
    """

    name: str
    elements: int
    stored_bytes: int

    def pieces(self, shape: tuple[int, ...]) -> tuple[Piece, ...]:
        """See `Format.pieces`."""
        return (Piece("weight", self.name, shape, self.bytes(shape)),)

    def bytes(self, shape: tuple[int, ...]) -> int:
        """See `Format.bytes`."""
        return -(-self.stored_bytes * prod(shape) // max(1, self.elements))


@dataclass(slots=True)
class _Found:
    """What the files hold of one tensor."""

    bytes: int = 0
    largest: StoredTensor | None = None
    copies: set[str] | None = None

    def add(self, item: StoredTensor, copy: str) -> None:
        self.bytes += item.bytes
        if self.largest is None or item.bytes > self.largest.bytes:
            self.largest = item
        if self.copies is None:
            self.copies = set()
        self.copies.add(copy)


def made_for_mlx(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint was quantized by MLX, whose name for that field of a config is its own."""
    config = checkpoint.config
    return config is not None and isinstance(config.raw("quantization"), dict)


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
        return subject_of_file(checkpoint.model, checkpoint.gguf, checkpoint.notes)
    if checkpoint.file_type:
        if format_name is not None:
            raise BadInput(
                f"{checkpoint.model} is asked for as {checkpoint.file_type} and as {format_name}",
                "leave out --format, or what stands behind the colon",
            )
        format_name = f"gguf-{checkpoint.file_type}"
    format_name = format_name or checkpoint.format_name or None
    if checkpoint.config is None:
        raise BadInput(
            f"{checkpoint.model}: there is no config.json beside the tensors, so the layers are not known",
            "give the directory that holds both",
        )
    quant = named_file_type(format_name) if format_name is not None else None
    if quant is not None:
        architecture = build(checkpoint.config)
        subject = subject_of_prediction(
            checkpoint.model,
            checkpoint.config,
            architecture,
            quant,
            stored_head=_stores_head(checkpoint, architecture),
            notes=checkpoint.notes,
        )
    else:
        subject = subject_from_config(checkpoint.model, checkpoint.config, format_name, checkpoint.notes)
    subject = replace(subject, embeds=checkpoint.embeds)
    if checkpoint.embeds and checkpoint.source == "catalogue" and subject.architecture.causal:
        subject = replace(subject, notes=(*subject.notes, _BY_NAME))
    if format_name is not None:
        return subject
    if checkpoint.tensors is not None:
        return _from_headers(subject, checkpoint.tensors)
    return _checked(subject, checkpoint.stored_bytes)


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
    if format_name is not None and (quant := named_file_type(format_name)) is not None:
        return subject_of_prediction(model, config, architecture, quant, notes=notes)
    recipe = (
        recipe_for(config, dtype) if format_name is None else recipe_named(format_name, dtype, architecture)
    )
    return Subject(
        model, architecture, recipe, weight_lines(architecture, recipe), notes=(*notes, *architecture.notes)
    )


def _stores_head(checkpoint: Checkpoint, architecture: Architecture) -> bool:
    if checkpoint.tensors is not None:
        return any(_is_tied_head(item, architecture) for item in checkpoint.tensors)
    return counts_head(architecture, checkpoint.facts.get("params_total"))


def _checked(subject: Subject, announced: int | None) -> Subject:
    """Compare what an index announces with what the config implies."""
    implied = subject.weight_bytes + subject.mtp_bytes
    if announced is None or not implied or abs(announced - implied) <= _TOLERANCE * implied:
        return subject
    sizes = f"{format_bytes(announced)} of tensors, the config implies {format_bytes(implied)}"
    return replace(subject, announced_bytes=announced, notes=(*subject.notes, f"the index announces {sizes}"))


def _from_headers(subject: Subject, stored: tuple[StoredTensor, ...]) -> Subject:
    """Replace what the recipe implies by what the file headers say."""
    matcher = Matcher(subject.architecture)
    found, strange = _matched(matcher, stored)
    tied = [item for item in strange if _is_tied_head(item, subject.architecture)]
    strange = [item for item in strange if item not in tied and not _is_computed(item)]
    lacking = {
        key: tensor
        for key, tensor in matcher.tensors.items()
        if key not in found and tensor.kind != "buffer" and tensor.part != "mtp"
    }
    refused, strange = _fused_otherwise(lacking, strange)
    if not found and not refused:
        raise BadInput(f"{subject.model}: none of the stored tensors belongs to the config's architecture")
    entries: list[tuple[Tensor, Format, int]] = []
    for key, parts in found.items():
        tensor = matcher.tensors[key]
        entries.append((tensor, _format_of(matcher.names[key], tensor, parts, subject.recipe), parts.bytes))
    for key, size in refused.items():
        tensor = lacking.pop(key)
        entries.append((tensor, AsStored("as stored", tensor.elements, size), size))
    extra: Counter[Part] = Counter()
    for item in strange:
        extra[_part_of(item.name, len(subject.architecture.layers))] += item.bytes
    for part, size in extra.items():
        tensor = Tensor("(other tensors)", (size,), part, "other")
        entries.append((tensor, AsStored("bytes", size, size), size))
    return replace(
        subject,
        lines=lines_of(entries),
        from_headers=True,
        notes=(*subject.notes, *_notes(strange, lacking, found, matcher.tensors, tied)),
    )


def _matched(
    matcher: Matcher, stored: Iterable[StoredTensor]
) -> tuple[dict[str, _Found], list[StoredTensor]]:
    """What the files hold of each tensor by its key, and what belongs to none."""
    found: defaultdict[str, _Found] = defaultdict(_Found)
    others = []
    for item in stored:
        match = matcher.named(item.name)
        if match is None:
            others.append(item)
        else:
            found[match[0]].add(item, match[1])
    taken, strange = set(found), []
    for item in others:
        match = matcher.similar(item.name, taken)
        if match is None:
            strange.append(item)
        else:
            found[match[0]].add(item, match[1])
    return dict(found), strange


def _format_of(name: str, tensor: Tensor, parts: _Found, recipe: Recipe) -> Format:
    """The recipe's format if the stored bytes are what it implies, else what the header says."""
    implied = recipe.format_of(name, tensor)
    if abs(implied.bytes(tensor.shape) * tensor.copies - parts.bytes) <= _OPEN_BYTES * tensor.copies:
        return implied
    dtype = parts.largest.dtype if parts.largest else "bytes"
    if parts.bytes == tensor.elements * DTYPE_BYTES.get(dtype, 0):
        return Plain(dtype)
    return AsStored(dtype, tensor.elements, parts.bytes)


def _fused_otherwise(
    lacking: Mapping[str, Tensor], strange: list[StoredTensor]
) -> tuple[dict[str, int], list[StoredTensor]]:
    """Tensors that are stored in other pieces than the architecture names: fused, or one by one.

    What a module lacks and what is strange in it are taken for the same numbers if they are as many.
    """
    expected: Counter[str] = Counter()
    for key, tensor in lacking.items():
        for module in _modules(key):
            expected[module] += tensor.elements
    held: Counter[str] = Counter()
    for item in strange:
        for module in _modules(item.name):
            held[module] += prod(item.shape)
    sizes: Counter[str] = Counter()
    left: list[StoredTensor] = []
    for item in strange:
        whole = next((m for m in _modules(item.name) if 0 < held[m] == expected[m]), None)
        if whole is None:
            left.append(item)
        else:
            sizes[whole] += item.bytes
    shares = {}
    for key, tensor in lacking.items():
        whole = next((module for module in _modules(key) if module in sizes), None)
        if whole is not None:
            shares[key] = sizes[whole] * tensor.elements // expected[whole]
    return shares, left


def _modules(name: str) -> list[str]:
    """The modules that a tensor lies in, the innermost first, without indices of experts."""
    words = re.sub(r"(experts)\.(?:\d+|#)\.", r"\1.", name).split(".")
    return [".".join(words[:count]) for count in range(len(words) - 1, max(0, len(words) - 4), -1)]


def _notes(
    strange: list[StoredTensor],
    lacking: Mapping[str, Tensor],
    found: Mapping[str, _Found],
    tensors: Mapping[str, Tensor],
    tied: list[StoredTensor],
) -> list[str]:
    notes = []
    # Single numbers are scales of a cache or an activation.
    unknown = [item for item in strange if prod(item.shape) > 1]
    if unknown:
        size = format_bytes(sum(item.bytes for item in unknown))
        notes.append(
            f"{len(unknown)} stored tensors ({size}) are not part of the architecture as it is known, "
            f"such as {unknown[0].name}; they are counted as weights"
        )
    short = {
        key: tensors[key].copies - len(parts.copies or ())
        for key, parts in found.items()
        if tensors[key].copies > len(parts.copies or ())
    }
    missing = sum(tensor.copies for tensor in lacking.values()) + sum(short.values())
    if missing:
        example = next(iter([*lacking, *short]))
        notes.append(f"{missing} tensors that the config implies are not in the files, such as {example}")
    if tied:
        size = format_bytes(sum(item.bytes for item in tied))
        notes.append(f"{tied[0].name} ({size}) is stored, but the head shares the token table when loaded")
    return notes


def _part_of(name: str, layers: int) -> Part:
    """Where a tensor that the architecture does not have belongs by its name."""
    index = _LAYER.search(name)
    if index is not None and int(index.group(1)) >= layers:
        return "mtp"
    return next((part for part, pattern in _MODALITIES if pattern.search(name)), "mlp")


def _is_tied_head(item: StoredTensor, architecture: Architecture) -> bool:
    return architecture.tied and "lm_head." in f".{item.name}"


def _is_computed(item: StoredTensor) -> bool:
    """Masks have more axes than the one of a bias."""
    named = _COMPUTED.search(item.name) is not None
    return named and not (item.name.endswith(".bias") and len(item.shape) < 2)
