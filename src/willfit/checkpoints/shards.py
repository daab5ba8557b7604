"""A safetensors checkpoint: one file, or many with an index."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from willfit.checkpoints.jsonfile import MAX_INDEX_BYTES, parse_object
from willfit.checkpoints.safetensors import StoredTensor, read_header
from willfit.checkpoints.source import ByteSource, NotFound, read_all
from willfit.errors import BadInput

#: In the order in which engines look for them.
INDEX_NAMES = ("model.safetensors.index.json", "consolidated.safetensors.index.json")
SINGLE_NAMES = ("model.safetensors", "consolidated.safetensors")

_NUMBERED = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors$")
_BESIDE = re.compile(r"[^/\\:]+\.safetensors")
_MAX_SHARDS = 4096
_THREADS = 16


@dataclass(frozen=True, slots=True)
class Index:
    """A `model.safetensors.index.json`.

    Attributes
    ----------
    shard_of
        The file that holds each tensor.
    total_bytes
        What all tensors take, by the index's own account; None if it gives none.
    """

    shard_of: dict[str, str] = field(repr=False)
    total_bytes: int | None

    @property
    def shards(self) -> list[str]:
        """The files, each once, sorted."""
        return sorted(set(self.shard_of.values()))


def read_index(source: ByteSource) -> Index:
    """Read an index.

    Raises
    ------
    BadInput
        If it is no index, or names files outside its own directory.
    """
    fields = parse_object(read_all(source, MAX_INDEX_BYTES), source.name, MAX_INDEX_BYTES)
    shard_of = fields.get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise BadInput(f"{source.name} has no `weight_map`")
    for shard in shard_of.values():
        if not isinstance(shard, str) or _BESIDE.fullmatch(shard) is None:
            raise BadInput(f"{source.name} names {str(shard)[:80]!r}, which is no safetensors file beside it")
    if len(set(shard_of.values())) > _MAX_SHARDS:
        raise BadInput(f"{source.name} names more than {_MAX_SHARDS} files")
    return Index(shard_of, _total(fields.get("metadata")))


def read_shards(index: Index, opened: Callable[[str], ByteSource]) -> tuple[StoredTensor, ...]:
    """Read the headers of all files of an index, several at a time.

    Parameters
    ----------
    index
        The index.
    opened
        Opens the file of a given name. Called from several threads.

    Raises
    ------
    BadInput
        If a file cannot be read or lacks a tensor that the index expects in it.
    """
    headers = read_headers(index.shards, opened)
    tensors: dict[str, StoredTensor] = {}
    for shard, header in headers.items():
        for tensor in header:
            # Loaders take a tensor from where the index says; one that it does not list comes along.
            if index.shard_of.get(tensor.name, shard) == shard:
                tensors.setdefault(tensor.name, tensor)
    missing = next((name for name in index.shard_of if name not in tensors), None)
    if missing is not None:
        raise BadInput(
            f"{index.shard_of[missing]} lacks the tensor {missing[:80]!r} that the index expects in it"
        )
    return tuple(tensors.values())


def read_headers(
    names: Collection[str], opened: Callable[[str], ByteSource]
) -> dict[str, tuple[StoredTensor, ...]]:
    """Read the headers of several files, several at a time. For `opened` and errors see `read_shards`."""

    def header(name: str) -> tuple[StoredTensor, ...]:
        source = opened(name)
        try:
            return read_header(source)
        finally:
            source.close()

    if len(names) == 1:
        return {name: header(name) for name in names}
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(_THREADS, len(names))) as pool:
        futures = {name: pool.submit(header, name) for name in names}
        try:
            return {name: future.result() for name, future in futures.items()}
        except BadInput:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def without_index(names: Collection[str]) -> list[str]:
    """The safetensors files that make up a checkpoint that has no index.

    Parameters
    ----------
    names
        All file names of a directory.

    Raises
    ------
    BadInput
        If one of a numbered series is missing, or it is not clear which files belong together.
    """
    for name in SINGLE_NAMES:
        if name in names:
            return [name]
    files = sorted(
        name for name in names if name.endswith(".safetensors") and not name.startswith("adapter_")
    )
    matches = [match for name in files if (match := _NUMBERED.match(name))]
    series = {(match["stem"], int(match["count"])) for match in matches}
    if series:
        stem, count = min(series, key=lambda key: (key[0] != "model", key))
        wanted = series_of(f"{stem}-00001-of-{count:05}.safetensors")
        missing = next((name for name in wanted if name not in files), None)
        if missing is not None:
            raise NotFound(f"{missing} is missing", "download it")
        return wanted
    if len(files) > 1:
        raise BadInput(f"several safetensors files and no index: {', '.join(files[:4])}", "give one of them")
    return files


def series_of(name: str) -> list[str]:
    """All files of the numbered series that a file's name says it belongs to, else the file alone.

    Raises
    ------
    BadInput
        If the number is beyond the count.
    """
    match = _NUMBERED.match(name)
    if match is None:
        return [name]
    number, count = int(match["number"]), int(match["count"])
    if not 1 <= number <= count <= _MAX_SHARDS:
        raise BadInput(f"{name} is file {number} of {count}, which cannot be")
    return [f"{match['stem']}-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]


def _total(metadata: Any) -> int | None:
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    if isinstance(total, float) and total.is_integer():
        total = int(total)
    return total if type(total) is int and 0 < total < 2**60 else None
