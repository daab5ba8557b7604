"""The header of a GGUF file: metadata and tensor descriptions, without tensor data.

The layout is that of `ggml/src/gguf.cpp` and `docs/gguf.md` of ggml: magic, version, counts, key-value
pairs, tensor descriptions, then the data at the next multiple of `general.alignment`. Versions 2 and 3 are
read; a version 3 file may be big-endian throughout.

Vocabularies (arrays of 150,000 strings and more) are walked, and kept only where someone asks for them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from willfit.checkpoints.source import ByteSource, Cursor, is_instead
from willfit.errors import BadInput
from willfit.ggml_types import GGML_TYPES_BY_ID

#: The largest headers (merges of a 260k vocabulary) take 20 MiB.
_MAX_HEADER_BYTES = 256 * 2**20
_MAX_TENSORS = 2**17
_MAX_KEYS = 2**16
_MAX_NAME_BYTES = 2**16 - 1
_MAX_TEXT_BYTES = 2**24
_MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
_MAX_ARRAY_DEPTH = 4
_MAX_NESTED = 2**16
_MAX_FILES = 2**12
#: Per-layer arrays (KV heads, window pattern) have one entry a layer; longer arrays are vocabulary data.
_MAX_KEPT_ENTRIES = 4096

_STRING, _ARRAY = 8, 9
#: Value type number -> name, struct format and bytes, for the types of fixed size.
_SCALARS: dict[int, tuple[str, str, int]] = {
    0: ("uint8", "B", 1), 1: ("int8", "b", 1), 2: ("uint16", "H", 2), 3: ("int16", "h", 2),
    4: ("uint32", "I", 4), 5: ("int32", "i", 4), 6: ("float32", "f", 4), 7: ("bool", "?", 1),
    10: ("uint64", "Q", 8), 11: ("int64", "q", 8), 12: ("float64", "d", 8),
}  # fmt: skip

_SPLIT_NAME = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class GgufArray:
    """An array that was walked over: its entries' type (`string`, `float32`, ...) and their number."""

    type: str
    length: int


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor as a GGUF header describes it.

    Attributes
    ----------
    name
        Its name: `blk.0.attn_q.weight`.
    type
        Its ggml type, a key of `ggml_types.GGML_TYPES`: `Q4_K`, `F16`.
    ne
        Its dimensions in ggml's order, the contiguous one first.
    bytes
        What its data takes, without the padding behind it.
    offset
        Where its data starts in its file.
    file
        Which of the files of a split checkpoint holds it, from 0.
    """

    name: str
    type: str
    ne: tuple[int, ...]
    bytes: int
    offset: int
    file: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions in torch's order: a linear weight is (out, in)."""
        return self.ne[::-1]


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file, or all files of a split one, says about a model.

    Attributes
    ----------
    version
        2 or 3.
    big_endian
        Whether its numbers are big-endian.
    metadata
        Keys to int, float, bool, str, a tuple of these (at most 4096 numbers), or a `GgufArray`.
    tensors
        All tensors in file order.
    file_bytes
        Size of each file; None where the server does not tell.
    """

    version: int
    big_endian: bool
    metadata: Mapping[str, Any] = field(repr=False)
    tensors: tuple[GgufTensor, ...] = field(repr=False)
    file_bytes: tuple[int | None, ...]


def read_header(source: ByteSource, file: int = 0, keep: Collection[str] = ()) -> GgufHeader:
    """Read the header of one GGUF file.

    Parameters
    ----------
    source
        The file.
    file
        Its index among the files of a split checkpoint, noted in each tensor.
    keep
        Keys of arrays that are kept whole, as tuples.

    Raises
    ------
    BadInput
        If it is no GGUF file of version 2 or 3, or its header contradicts itself or the size of the file.
    """
    return _Reader(source, file, keep).header()


def read_gguf(name: str, opened: Callable[[str], ByteSource]) -> GgufHeader:
    """Read a GGUF checkpoint: one file, or all files of a split one.

    Parameters
    ----------
    name
        The file's name (path or URL); of a split checkpoint that of any of its files.
    opened
        Opens the file of a given name.

    Raises
    ------
    BadInput
        If a file of a split checkpoint is missing, or a header is broken.
    """
    names = split_names(name)
    headers = []
    for index, file_name in enumerate(names):
        source = opened(file_name)
        try:
            headers.append(read_header(source, index))
        finally:
            source.close()
    first = headers[0]
    count = first.metadata.get("split.count", 1)
    if len(names) == 1 and count not in (0, 1):
        raise BadInput(
            f"{name} is one of {count} files, but is not named like one",
            "name them <model>-00001-of-0000N.gguf, as gguf-split does",
        )
    if len(names) == 1:
        return first
    for file_name, header in zip(names, headers, strict=True):
        if header.metadata.get("split.count") != len(names):
            raise BadInput(f"{file_name} does not say that it is one of {len(names)} files of a split model")
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise BadInput(f"{name}: two of its {len(names)} files hold a tensor of the same name")
    expected = first.metadata.get("split.tensors.count", len(tensors))
    if expected != len(tensors):
        raise BadInput(
            f"{name}: its {len(names)} files hold {len(tensors)} tensors, the first announces {expected}"
        )
    file_bytes = tuple(header.file_bytes[0] for header in headers)
    return GgufHeader(first.version, first.big_endian, first.metadata, tensors, file_bytes)


def split_names(name: str) -> tuple[str, ...]:
    """All files of the checkpoint that the file `name` belongs to, itself if it is not split.

    Raises
    ------
    BadInput
        If the name numbers the file beyond the count that it states.
    """
    match = _SPLIT_NAME.match(name)
    if match is None:
        return (name,)
    number, count = int(match["number"]), int(match["count"])
    if not 1 <= number <= count <= _MAX_FILES:
        raise BadInput(f"{name} is file {number} of {count}, which cannot be")
    extension = name[-len(".gguf") :]
    return tuple(f"{match['stem']}-{i:05}-of-{count:05}{extension}" for i in range(1, count + 1))


class _Reader:
    """Walks one file from its first byte to the end of its tensor descriptions."""

    def __init__(self, source: ByteSource, file: int, keep: Collection[str] = ()) -> None:
        self.name = source.name
        self.file = file
        self.keep = keep
        self.source = source
        self.cursor = Cursor(source, _MAX_HEADER_BYTES)
        self.order = "<"
        self.length = struct.Struct("<Q").unpack_from

    def header(self) -> GgufHeader:
        head = self.source.read(0, 100)
        if not head.startswith(b"GGUF"):
            raise is_instead(self.name, head)
        self.cursor.skip(4)
        version = self.scalar("I")
        if version & 0xFFFF == 0 and version:  # as gguf.cpp tells that the bytes are the other way round
            version = int.from_bytes(version.to_bytes(4, "little"), "big")
            self.order = ">"
            self.length = struct.Struct(">Q").unpack_from
        if version == 1:
            raise BadInput(
                f"{self.name} is a GGUF file of version 1", "convert it again with a current llama.cpp"
            )
        if version not in (2, 3) or (version == 2 and self.order == ">"):
            raise BadInput(f"{self.name} is a GGUF file of version {version}; versions 2 and 3 can be read")
        n_tensors, n_keys = self.scalar("Q"), self.scalar("Q")
        if n_tensors > _MAX_TENSORS or n_keys > _MAX_KEYS:
            raise BadInput(f"{self.name}: its header claims {n_tensors} tensors and {n_keys} keys")
        metadata: dict[str, Any] = {}
        for _ in range(n_keys):
            key = self.identifier("a key")
            if key in metadata:
                raise BadInput(f"{self.name}: the key {key[:80]!r} occurs twice")
            metadata[key] = self.value(key)
        tensors = self.tensors(n_tensors, metadata)
        return GgufHeader(version, self.order == ">", metadata, tensors, (self.source.size,))

    def scalar(self, code: str) -> Any:
        layout = self.order + code
        return struct.unpack(layout, self.cursor.take(struct.calcsize(layout)))[0]

    def text(self, limit: int, what: str) -> bytes:
        length = self.scalar("Q")
        if length > limit:
            raise BadInput(f"{self.name}: {what} would be {length} bytes long")
        return self.cursor.take(length)

    def identifier(self, what: str) -> str:
        data = self.text(_MAX_NAME_BYTES, what)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise BadInput(f"{self.name}: {what} is not UTF-8 text") from None

    def value(self, key: str) -> Any:
        kind = self.scalar("I")
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind][1])
        if kind == _STRING:
            return self.text(_MAX_TEXT_BYTES, f"the value of {key[:80]!r}").decode(errors="replace")
        if kind != _ARRAY:
            raise BadInput(f"{self.name}: the key {key[:80]!r} has the unknown type {kind}")
        kind, length = self.scalar("I"), self.scalar("Q")
        if kind == _STRING and key in self.keep:
            return self.strings(length)
        short = length <= _MAX_KEPT_ENTRIES and not key.startswith("tokenizer.")
        if kind in _SCALARS and (short or key in self.keep):
            _, code, size = _SCALARS[kind]
            return struct.unpack(f"{self.order}{length}{code}", self.cursor.take(length * size))
        return GgufArray(self.walk(key, kind, length, 1), length)

    def strings(self, count: int) -> tuple[str, ...]:
        """The entries of an array of strings."""
        if count * 8 > _MAX_HEADER_BYTES:
            raise self.cursor.truncated()
        return tuple(self.text(_MAX_NAME_BYTES, "an entry").decode(errors="replace") for _ in range(count))

    def walk(self, key: str, kind: int, length: int, depth: int) -> str:
        """Step over the entries of an array and return the name of their type."""
        if kind in _SCALARS:
            self.cursor.skip(length * _SCALARS[kind][2])
            return _SCALARS[kind][0]
        if kind == _STRING:
            self.walk_strings(length)
            return "string"
        if kind != _ARRAY:
            raise BadInput(f"{self.name}: the array {key[:80]!r} has the unknown type {kind}")
        if depth == _MAX_ARRAY_DEPTH:
            raise BadInput(f"{self.name}: the array {key[:80]!r} nests too deeply")
        if length > _MAX_NESTED:
            raise BadInput(f"{self.name}: the array {key[:80]!r} would hold {length} arrays")
        for _ in range(length):
            self.walk(key, self.scalar("I"), self.scalar("Q"), depth + 1)
        return "array"

    def walk_strings(self, count: int) -> None:
        """Step over `count` strings: the loop that decides how long a vocabulary takes."""
        cursor, unpack = self.cursor, self.length
        if count * 8 > _MAX_HEADER_BYTES:
            raise self.cursor.truncated()
        while count:
            chunk, at = cursor.chunk, cursor.at
            last = len(chunk) - 8
            while count and at <= last:
                following = at + 8 + unpack(chunk, at)[0]
                if following > last + 8:
                    break
                at = following
                count -= 1
            cursor.at = at
            if count:
                cursor.need(8)
                cursor.skip(8 + unpack(cursor.chunk, cursor.at)[0])
                count -= 1

    def tensors(self, count: int, metadata: Mapping[str, Any]) -> tuple[GgufTensor, ...]:
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1) or alignment > 2**30:
            raise BadInput(f"{self.name}: the alignment {str(alignment)[:80]} is not a power of two")
        found: dict[str, GgufTensor] = {}
        for _ in range(count):
            tensor = self.tensor(alignment)
            if tensor.name in found:
                raise BadInput(f"{self.name}: the tensor {tensor.name[:80]!r} occurs twice")
            found[tensor.name] = tensor
        start = -(-self.cursor.position // alignment) * alignment
        end, previous = 0, ""
        for tensor in sorted(found.values(), key=lambda t: (t.offset, t.bytes)):
            if tensor.offset < end:
                raise BadInput(f"{self.name}: the tensors {previous[:80]!r} and {tensor.name[:80]!r} overlap")
            end, previous = tensor.offset + tensor.bytes, tensor.name
        size = self.source.size
        if size is not None and found and start + end > size:
            raise BadInput(
                f"{self.name} is truncated: its tensors end at byte {start + end}, the file has {size}",
                "download it again",
            )
        return tuple(
            GgufTensor(t.name, t.type, t.ne, t.bytes, start + t.offset, self.file) for t in found.values()
        )

    def tensor(self, alignment: int) -> GgufTensor:
        name = self.identifier("a tensor name")
        where = f"{self.name}: the tensor {name[:80]!r}"
        n_dimensions = self.scalar("I")
        if n_dimensions > _MAX_DIMENSIONS:
            raise BadInput(f"{where} has {n_dimensions} dimensions")
        ne = struct.unpack(f"{self.order}{n_dimensions}Q", self.cursor.take(8 * n_dimensions))
        kind = GGML_TYPES_BY_ID.get(number := self.scalar("I"))
        if kind is None:
            raise BadInput(f"{where} has the unknown type {number}")
        if prod(ne) >= 2**63 or max(ne, default=1) >= 2**63:
            raise BadInput(f"{where} has an impossible shape")
        if ne[:1] and ne[0] % kind.block:
            raise BadInput(f"{where} has rows of {ne[0]}, but {kind.name} needs a multiple of {kind.block}")
        if not ne and kind.block > 1:
            raise BadInput(f"{where} is a single number, which {kind.name} cannot hold")
        offset = self.scalar("Q")
        if offset % alignment or offset >= 2**63:
            raise BadInput(f"{where} starts at byte {offset}, which is not a multiple of {alignment}")
        return GgufTensor(name, kind.name, ne, kind.stored(ne), offset)
