"""Models on ModelScope, by the web addresses that its own client uses.

The list of a repository's files is at `/api/v1/models/<id>/repo/files`, a file at
`/models/<id>/resolve/<revision>/<path>` (`modelscope/hub/api.py` and `file_download.py` of its client).
"""

from __future__ import annotations

import os
from urllib.parse import quote, urlencode, urlsplit

from willfit.checkpoints.checkpoint import Checkpoint, Source
from willfit.checkpoints.jsonfile import MAX_CONFIG_BYTES, parse_object
from willfit.checkpoints.ranged import RemoteFile
from willfit.checkpoints.reading import read_file, read_place
from willfit.checkpoints.source import NotFound, Unreachable, read_all
from willfit.errors import BadInput

_HOSTS = ("modelscope.cn", "www.modelscope.cn", "modelscope.ai", "www.modelscope.ai")


class ModelScopeRepository:
    """One revision of a repository of ModelScope as a `Place`.

    Parameters
    ----------
    repo_id
        `organisation/model`.
    revision
        A branch or tag.
    """

    def __init__(self, repo_id: str, revision: str) -> None:
        self.name = repo_id
        self.revision: str | None = revision
        self.source: Source = "hub"
        self.notes: tuple[str, ...] = ()
        self._root = _endpoint()

    def open(self, name: str) -> RemoteFile:
        """Open one of its files."""
        path = f"{quote(self.name)}/resolve/{quote(self.revision or '', safe='')}/{quote(name)}"
        return RemoteFile(f"{self._root}/models/{path}", f"{self.name}/{name}")

    def names(self) -> list[str]:
        """All files, with `/` between a subdirectory and a name.

        Raises
        ------
        BadInput
            If there is no such repository, or the site does not answer as expected.
        """
        query = urlencode({"Revision": self.revision, "Recursive": "true"})
        url = f"{self._root}/api/v1/models/{quote(self.name)}/repo/files?{query}"
        try:
            listing = parse_object(read_all(RemoteFile(url), MAX_CONFIG_BYTES), "ModelScope's answer")
        except NotFound:
            raise NotFound(
                f"ModelScope has no model {self.name} with a revision {self.revision}", "check the spelling"
            ) from None
        data = listing.get("Data")
        files = data.get("Files") if isinstance(data, dict) else None
        if not isinstance(files, list):
            raise NotFound(f"ModelScope lists no files of {self.name}", "check the spelling")
        paths = [file.get("Path") for file in files if isinstance(file, dict) and file.get("Type") != "tree"]
        return [path for path in paths if isinstance(path, str)]


def read_modelscope(
    repo_id: str, revision: str | None = None, tag: str = "", file: str = "", offline: bool = False
) -> Checkpoint:
    """Read a model of ModelScope. For the parameters see `hub.read_hub`; the default revision is `master`.

    Raises
    ------
    BadInput
        If there is no such model, or it cannot be had.
    """
    if offline:
        raise Unreachable(
            f"{repo_id} would have to come from ModelScope, and the network is off (offline mode)"
        )
    repository = ModelScopeRepository(repo_id, revision or "master")
    if file and file != "config.json":
        return read_file(repository, file)
    return read_place(repository, repository.names(), tag)


def modelscope_id(url: str) -> tuple[str, str | None, str] | None:
    """The repository, revision and file that an address of ModelScope shows, None if it is another."""
    parts = urlsplit(url)
    if parts.netloc.lower() not in (*_HOSTS, urlsplit(_endpoint()).netloc.lower()):
        return None
    path = [part for part in parts.path.split("/") if part]
    if len(path) < 3 or path[0] != "models":
        return None
    repo_id = "/".join(path[1:3])
    if len(path) >= 6 and path[3] == "resolve":
        return repo_id, path[4], "/".join(path[5:])
    return repo_id, None, ""


def _endpoint() -> str:
    domain = os.environ.get("MODELSCOPE_DOMAIN", "").strip().rstrip("/") or "www.modelscope.cn"
    if "://" not in domain:
        domain = f"https://{domain}"
    if urlsplit(domain).scheme not in ("http", "https"):
        raise BadInput(f"MODELSCOPE_DOMAIN is {domain}, which is no web address")
    return domain
