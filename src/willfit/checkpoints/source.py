"""Where bytes come from: a file on disk or, in `ranged`, behind a URL. Plus a cursor to walk a header."""

from __future__ import annotations

import os
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from willfit.errors import BadInput


class Unreachable(BadInput):
    """The network, or the server, did not deliver. What was asked for may be quite all right."""


class NotFound(BadInput):
    """There is no such file."""


class Forbidden(BadInput):
    """The server wants a token, or another one."""


class ByteSource(Protocol):
    """Random access to the bytes of one file."""

    @property
    def name(self) -> str:
        """How to name the file in an error."""
        ...

    @property
    def size(self) -> int | None:
        """Its length in bytes; None if that is not known (yet)."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, fewer only where the file ends."""
        ...

    def close(self) -> None:
        """Give back what holds the file open."""
        ...


class LocalFile:
    """A file on disk.

    Raises
    ------
    BadInput
        If it cannot be opened or is no regular file.
    """

    def __init__(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        self.name = name or str(path)
        try:
            if not os.path.isfile(path):  # a pipe or a device would block or never end
                fault = "is not a file" if os.path.lexists(path) else "does not exist"
                raise NotFound(f"{self.name} {fault}")
            self._file: BinaryIO = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by close)
            self.size: int | None = os.fstat(self._file.fileno()).st_size
        except (OSError, ValueError) as error:
            raise BadInput(f"cannot read {self.name}: {reason(error)}") from None

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, fewer only where the file ends."""
        try:
            self._file.seek(offset)
            return self._file.read(max(0, min(length, (self.size or 0) - offset)))
        except OSError as error:
            raise BadInput(f"cannot read {self.name}: {reason(error)}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def reason(error: Exception) -> str:
    """What went wrong, in the operating system's words, without the path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def shortened(text: str) -> str:
    """A text for an error, at most 120 characters long."""
    return text if len(text) <= 120 else f"{text[:80]}...{text[-37:]}"


def read_all(source: ByteSource, limit: int) -> bytes:
    """The whole of a small file.

    Raises
    ------
    BadInput
        If it is longer than `limit` bytes.
    """
    if source.size is not None and source.size > limit:
        raise BadInput(f"{source.name} is larger than {limit // 2**20} MiB", "is it the right file?")
    data = source.read(0, limit + 1)
    if len(data) > limit:
        raise BadInput(f"{source.name} is larger than {limit // 2**20} MiB", "is it the right file?")
    return data


def is_instead(name: str, head: bytes) -> BadInput:
    """The error for a file that should be something else: what it is, and what to do.

    Parameters
    ----------
    name
        How to name the file.
    head
        Its first bytes, about 100.

    Returns
    -------
    BadInput
        A `NotFound` if the file only stands for one that is elsewhere.
    """
    kind, hint = _kind(head)
    fault = NotFound if kind == _POINTER else BadInput
    return fault(f"{name} is {kind}", hint)


_POINTER = "a Git LFS pointer, not the file itself"


def _kind(head: bytes) -> tuple[str, str]:
    start = head.lstrip()[:80].lower()
    if head.startswith(b"version https://git-lfs.github.com/"):
        return _POINTER, "run `git lfs pull`, or download the file"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "an HTML page, not a model file", "download the file itself, not the page that shows it"
    if head.startswith(b"PK\x03\x04"):
        return (
            "a zip archive (a pickled PyTorch file?)",
            "pickles are never opened: give a safetensors or GGUF file",
        )
    if head.startswith(b"GGUF"):
        return "a GGUF file", "give it the extension .gguf"
    if len(head) >= 9 and head[8:9] == b"{":
        return "a safetensors file", "give it the extension .safetensors"
    if head.startswith((b"ggml", b"lmgg", b"fmgg", b"tjgg", b"algg")):
        return "a ggml file from before GGUF", "convert it again with a current llama.cpp"
    return ("empty" if not head else "no model file that can be read"), ""


class Cursor:
    """A position in a source, read in chunks that grow, so that few reads walk a header of any length.

    Parameters
    ----------
    source
        The file.
    limit
        Reading beyond this many bytes from the start is refused.

    Attributes
    ----------
    chunk
        Bytes that are at hand, from the current position `at` on.
    """

    def __init__(self, source: ByteSource, limit: int) -> None:
        self.source = source
        self.limit = limit
        self.chunk = b""
        self.at = 0
        self._base = 0
        self._step = 2**18

    @property
    def position(self) -> int:
        """Offset from the start of the file."""
        return self._base + self.at

    def need(self, length: int) -> None:
        """Make at least `length` bytes from the current position on available in `chunk`.

        Raises
        ------
        BadInput
            If the file ends before, or the header is longer than believable.
        """
        have = len(self.chunk) - self.at
        if have >= length:
            return
        start = self.position
        size = self.source.size
        if size is not None and start + length > size:
            raise self.truncated()
        if start + length > self.limit:
            raise BadInput(f"{self.source.name}: the header is longer than {self.limit // 2**20} MiB")
        more = self.source.read(start + have, max(length - have, self._step))
        if have + len(more) < length:
            raise self.truncated()
        self.chunk = self.chunk[self.at :] + more
        self._base, self.at = start, 0
        self._step = min(self._step * 2, 2**22)

    def skip(self, length: int) -> None:
        """Move on by `length` bytes without reading them.

        Raises
        ------
        BadInput
            As `need`.
        """
        if self.at + length <= len(self.chunk):
            self.at += length
            return
        target = self.position + length
        size = self.source.size
        if size is not None and target > size:
            raise self.truncated()
        if target > self.limit:
            raise BadInput(f"{self.source.name}: the header is longer than {self.limit // 2**20} MiB")
        self.chunk, self._base, self.at = b"", target, 0

    def take(self, length: int) -> bytes:
        """The next `length` bytes.

        Raises
        ------
        BadInput
            As `need`.
        """
        self.need(length)
        data = self.chunk[self.at : self.at + length]
        self.at += length
        return data

    def truncated(self) -> BadInput:
        """The error for a file that ends inside its header."""
        return BadInput(f"{self.source.name} is truncated: its header ends early", "download it again")
