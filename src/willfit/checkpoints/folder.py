"""Model files in a directory of this machine."""

from __future__ import annotations

import os
from pathlib import Path

from willfit.checkpoints.checkpoint import Checkpoint, Source
from willfit.checkpoints.reading import read_file, read_place
from willfit.checkpoints.source import LocalFile, NotFound, reason, shortened
from willfit.errors import BadInput


class Folder:
    """A directory as a `Place`.

    Parameters
    ----------
    path
        The directory.
    name
        How to call the model in it; the path by default.
    """

    def __init__(
        self,
        path: Path,
        name: str = "",
        source: Source = "local directory",
        revision: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.path = path
        self.name = name or str(path)
        self.source: Source = source
        self.revision = revision
        self.notes = notes

    def open(self, name: str) -> LocalFile:
        """Open one of its files."""
        return LocalFile(self.path / name)

    def names(self) -> list[str]:
        """The files in it, without those in subdirectories.

        Raises
        ------
        BadInput
            If it cannot be listed.
        """
        try:
            with os.scandir(self.path) as entries:
                return [entry.name for entry in entries if entry.is_file()]
        except OSError as error:
            raise BadInput(f"cannot read {self.path}: {reason(error)}") from None


def read_path(text: str) -> Checkpoint:
    """Read the model at a path: a directory, a GGUF or safetensors file, an index, or a config.json.

    Raises
    ------
    BadInput
        If nothing is there, or nothing that can be read.
    """
    path = Path(os.path.expanduser(text))
    if os.path.isdir(path):
        folder = Folder(path, name=text)
        return read_place(folder, folder.names())
    if not os.path.lexists(path):
        raise NotFound(f"{shortened(text)} does not exist", "check the path; a hub id is organisation/model")
    return read_file(Folder(path.parent, name=text, source="local file"), path.name)
