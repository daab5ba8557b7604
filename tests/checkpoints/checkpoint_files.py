"""Bytes of small model files, written by hand so that each can be broken in one place."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from willfit.checkpoints.source import LocalFile


class Bytes:
    """A source in memory, with a known or an unknown size, that counts what is read."""

    def __init__(self, data: bytes, sized: bool = True) -> None:
        self.data = data
        self.name = "test.file"
        self.size = len(data) if sized else None
        self.taken = 0

    def read(self, offset: int, length: int) -> bytes:
        part = self.data[offset : offset + length]
        self.taken += len(part)
        return part

    def close(self) -> None:
        pass


def safetensors(entries: object, data_bytes: int) -> bytes:
    header = (entries if isinstance(entries, str) else json.dumps(entries)).encode()
    return struct.pack("<Q", len(header)) + header + bytes(data_bytes)


def tensor(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def text(value: str, order: str = "<") -> bytes:
    return struct.pack(f"{order}Q", len(value.encode())) + value.encode()


def key(name: str, kind: int, value: bytes, order: str = "<") -> bytes:
    return text(name, order) + struct.pack(f"{order}I", kind) + value


def info(name: str, ne: tuple[int, ...], kind: int, offset: int, order: str = "<") -> bytes:
    packed = struct.pack(f"{order}I{len(ne)}QIQ", len(ne), *ne, kind, offset)
    return text(name, order) + packed


def gguf(
    keys: list[bytes] = [],  # noqa: B006 (never changed)
    infos: list[bytes] = [],  # noqa: B006
    data_bytes: int = 0,
    version: int = 3,
    order: str = "<",
    alignment: int = 32,
    counts: tuple[int, int] | None = None,
) -> bytes:
    n_tensors, n_keys = counts or (len(infos), len(keys))
    head = b"GGUF" + struct.pack(f"{order}IQQ", version, n_tensors, n_keys) + b"".join(keys) + b"".join(infos)
    return head + bytes(-len(head) % alignment) + bytes(data_bytes)


def local(path: Path, data: bytes) -> LocalFile:
    path.write_bytes(data)
    return LocalFile(path)


def traced_peak(action: Callable[[], object]) -> int:
    """The most bytes that Python objects took while `action` ran."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
