"""Model files at a plain web address."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit, urlunsplit

from willfit.checkpoints.checkpoint import Checkpoint, Source
from willfit.checkpoints.ranged import RemoteFile
from willfit.checkpoints.reading import read_file
from willfit.errors import BadInput

_READABLE = (".gguf", ".safetensors", ".json")


class WebFolder:
    """The files beside one at a web address, as a `Place`.

    Parameters
    ----------
    url
        The address of the one file.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        folder, _, name = parts.path.rpartition("/")
        self.file = unquote(name)
        self.name = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
        self.source: Source = "url"
        self.revision: str | None = None
        self.notes: tuple[str, ...] = ()
        self._url = url
        self._folder = urlunsplit((parts.scheme, parts.netloc, folder, "", ""))

    def open(self, name: str) -> RemoteFile:
        """Open the file, or one beside it; a signature behind `?` in the address holds for itself only."""
        return RemoteFile(self._url if name == self.file else f"{self._folder}/{quote(name)}")


def read_url(url: str) -> Checkpoint:
    """Read the model that a GGUF or safetensors file, an index or a config at a web address belongs to.

    Raises
    ------
    BadInput
        If the address is none, or of something else.
    """
    try:
        folder = WebFolder(url)
    except ValueError:
        raise BadInput(f"{url[:200]} is not an address that can be fetched") from None
    if not folder.file.lower().endswith(_READABLE):
        raise BadInput(
            f"{folder.name[:200]} is no file that can be read",
            "give the address of a .gguf, a .safetensors, its index or a config.json, or a hub's model page",
        )
    return read_file(folder, folder.file)
