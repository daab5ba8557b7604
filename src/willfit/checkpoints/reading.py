"""From a place with model files to a `Checkpoint`: the same rules for a directory, a hub and a web server."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from willfit.checkpoints.checkpoint import Checkpoint, Source
from willfit.checkpoints.config import Config
from willfit.checkpoints.gguf import GgufHeader, read_gguf, split_names
from willfit.checkpoints.jsonfile import MAX_CONFIG_BYTES, parse_object
from willfit.checkpoints.safetensors import StoredTensor
from willfit.checkpoints.shards import (
    INDEX_NAMES,
    read_headers,
    read_index,
    read_shards,
    series_of,
    without_index,
)
from willfit.checkpoints.source import ByteSource, Forbidden, NotFound, Unreachable, is_instead, read_all
from willfit.errors import BadInput
from willfit.file_types import LATEST, USUAL, known_quantization

#: Files beside config.json that say how the weights are quantized.
_SIDECARS = ("hf_quant_config.json", "quantize_config.json")

#: How the file names of GGUF repositories call a quantization.
_TAG = re.compile(r"(?:UD-)?(?:I?Q[1-8]_\w+|TQ[12]_0|BF16|F16|F32|MXFP4\w*|NVFP4\w*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Stored:
    """The tensors of a place and what they take; without them, why, and what an index announces."""

    tensors: tuple[StoredTensor, ...] | None = None
    bytes: int | None = None
    why: str = ""


class Place(Protocol):
    """Somewhere that model files lie side by side.

    Attributes
    ----------
    name
        How to call the model that lies there.
    source
        What kind of place it is.
    revision
        The commit, where there is one.
    notes
        What a user should know about the place.
    """

    name: str
    source: Source
    revision: str | None
    notes: tuple[str, ...]

    def open(self, name: str) -> ByteSource:
        """Open the file called `name`.

        Raises
        ------
        BadInput
            A `NotFound` if there is no such file.
        """
        ...


def read_place(place: Place, names: Collection[str], tag: str = "") -> Checkpoint:
    """Read the model that a directory or repository holds.

    Parameters
    ----------
    place
        Where the files lie.
    names
        All of them, with `/` between a subdirectory and a name.
    tag
        Which of several GGUF files is meant: a quantization (`Q4_K_M`) or a file name. Where there are none, the
        quantization that the model shall have as a GGUF file.

    Raises
    ------
    BadInput
        If there is no model, it is not clear which, or a file is broken.
    """
    ggufs = _gguf_files(names)
    file_type = ""
    if tag and not ggufs and "config.json" in names and known_quantization(tag) is not None:
        tag, file_type = "", tag
    weights = any(name.endswith((".safetensors", ".bin", ".pt", ".pth")) for name in names)
    if tag or (ggufs and not weights):
        return read_file(place, _choose(place, ggufs, tag))
    config = None
    if "config.json" in names:
        config = _config(place, "config.json", [name for name in _SIDECARS if name in names])
    elif "adapter_config.json" in names:
        raise _adapter(place)
    found = _checkpoint(place, config, _stored(place, names))
    return replace(found, file_type=file_type, embeds="modules.json" in names)


def read_file(place: Place, name: str) -> Checkpoint:
    """Read the model that one file belongs to.

    Parameters
    ----------
    place
        Where it and its siblings lie.
    name
        Its name: a GGUF file, a safetensors file or index, or a config.

    Raises
    ------
    BadInput
        If it is none of these, or broken.
    """
    kind = name.lower()
    if kind.endswith(".gguf"):
        return _from_gguf(place, name, read_gguf(name, place.open))
    if kind.endswith(".safetensors"):
        return _checkpoint(place, _config_beside(place), _together(place, series_of(name)))
    if kind.endswith(".safetensors.index.json"):
        return _checkpoint(place, _config_beside(place), _indexed(place, name))
    if kind.endswith(".json"):
        return _checkpoint(place, _config(place, name, _SIDECARS if name == "config.json" else ()), _Stored())
    source = place.open(name)
    head = source.read(0, 100)
    source.close()
    raise is_instead(source.name, head)


def _checkpoint(place: Place, config: Config | None, stored: _Stored) -> Checkpoint:
    if config is None and stored.tensors is None:
        raise BadInput(
            f"{place.name} holds no config.json"
            + (f", and {stored.why}" if stored.why else ", no safetensors and no GGUF file"),
            "give a model's directory or file, or a hub id",
        )
    notes = place.notes
    if stored.why:
        notes += (f"sizes are computed from the config: {stored.why}",)
    return Checkpoint(
        place.name,
        place.source,
        config,
        stored.tensors,
        stored.bytes,
        revision=place.revision,
        notes=notes,
        place=place,
    )


def _from_gguf(place: Place, name: str, header: GgufHeader) -> Checkpoint:
    stored_bytes = sum(tensor.bytes for tensor in header.tensors)
    return Checkpoint(
        place.name,
        "gguf file",
        None,
        None,
        stored_bytes,
        header,
        revision=place.revision,
        notes=place.notes,
        place=place,
        file=split_names(name)[0],
    )


def _stored(place: Place, names: Collection[str]) -> _Stored:
    """The tensors of a place, by its index or the names of its files."""
    names = {name for name in names if "/" not in name}
    index = next((name for name in INDEX_NAMES if name in names), None)
    if index is not None:
        return _indexed(place, index)
    try:
        files = without_index(names)
        return _together(place, files) if files else _Stored()
    except (Unreachable, NotFound, Forbidden) as error:
        return _Stored(why=error.message)


def _together(place: Place, files: Collection[str]) -> _Stored:
    """The tensors of files that have no index."""
    headers = read_headers(files, place.open)
    tensors = tuple(tensor for header in headers.values() for tensor in header)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise BadInput(f"{place.name}: two of its safetensors files hold a tensor of the same name")
    return _Stored(tensors, _sum(tensors))


def _indexed(place: Place, name: str) -> _Stored:
    """The tensors of the files that an index names."""
    total_bytes = None
    try:
        source = place.open(name)
        try:
            index = read_index(source)
        finally:
            source.close()
        total_bytes = index.total_bytes
        tensors = read_shards(index, place.open)
    except (Unreachable, NotFound, Forbidden) as error:
        return _Stored(bytes=total_bytes, why=error.message)
    return _Stored(tensors, _sum(tensors))


def _sum(tensors: Iterable[StoredTensor]) -> int:
    return sum(tensor.bytes for tensor in tensors)


def _config(place: Place, name: str, sidecars: Collection[str]) -> Config:
    fields, where = _json(place, name)
    for sidecar in sidecars:
        try:
            fields[sidecar.removesuffix(".json")] = _json(place, sidecar)[0]
        except NotFound:
            continue
    return Config(fields, where)


def _config_beside(place: Place) -> Config | None:
    try:
        return _config(place, "config.json", _SIDECARS)
    except (NotFound, Forbidden):
        return None


def _json(place: Place, name: str) -> tuple[dict[str, Any], str]:
    """The object in a JSON file, and how to name the file."""
    source = place.open(name)
    try:
        data = read_all(source, MAX_CONFIG_BYTES)
    finally:
        source.close()
    if data.lstrip()[:1] not in (b"{", b"[", b"\xef"):
        raise is_instead(source.name, data[:100])
    return parse_object(data, source.name), source.name


def _adapter(place: Place) -> BadInput:
    base = _json(place, "adapter_config.json")[0].get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        return BadInput(f"{place.name} is a LoRA adapter without its base model", "give the base model")
    return BadInput(f"{place.name} is a LoRA adapter for {base[:200]}", f"give the base model: {base[:200]}")


def _gguf_files(names: Collection[str]) -> list[str]:
    """The GGUF models among the files, of a split one its first file; not vision projectors and the like."""
    files = sorted(name for name in names if name.lower().endswith(".gguf"))
    models = [
        name for name in files if not re.search(r"mmproj|imatrix", name.rpartition("/")[2], re.IGNORECASE)
    ]
    return list(dict.fromkeys(split_names(name)[0] for name in models))


def _choose(place: Place, files: list[str], tag: str) -> str:
    if not tag:
        if len(files) == 1:
            return files[0]
        how = (
            "give one of the files"
            if place.source == "local directory"
            else f"give one, as {place.name}:{_label(files[0])}"
        )
        raise BadInput(f"{place.name} holds {len(files)} GGUF models: {_labels(files)}", how)
    if tag.lower() == LATEST and files:
        return _usual(files)
    delimited = re.compile(rf"(?:^|[-./]){re.escape(tag)}(?=[-./]|$)", re.IGNORECASE)
    found = [name for name in files if name == tag or delimited.search(name)]
    if not found:
        known = f"there are: {_labels(files)}" if files else "it has no GGUF files"
        raise BadInput(f"{place.name} has no GGUF file {tag[:80]!r}", known)
    return min(found, key=lambda name: (len(name), name))


def _usual(files: list[str]) -> str:
    """The file that llama.cpp takes where none is named."""
    for quantization in USUAL:
        for name in files:
            if re.search(rf"[-._]{quantization}(?=[-.]|$)", name, re.IGNORECASE):
                return name
    return files[0]


def _label(name: str) -> str:
    tags = _TAG.findall(name)
    return str(tags[-1]) if tags else name


def _labels(files: list[str]) -> str:
    labels = list(dict.fromkeys(map(_label, files)))
    return ", ".join(labels[:12]) + (", ..." if len(labels) > 12 else "")
