"""Models on the Hugging Face hub, through `huggingface_hub`: its cache, tokens, endpoint and offline mode.

Small JSON files are downloaded into the library's cache. Of tensor files only the header is read, by range
requests, unless they are in the cache already.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from willfit.checkpoints.checkpoint import Checkpoint, Source
from willfit.checkpoints.folder import Folder
from willfit.checkpoints.jsonfile import MAX_CONFIG_BYTES, MAX_INDEX_BYTES, MAX_TOKENIZER_BYTES
from willfit.checkpoints.reading import read_file, read_place
from willfit.checkpoints.source import (
    ByteSource,
    Forbidden,
    LocalFile,
    NotFound,
    Unreachable,
    reason,
    shortened,
)
from willfit.errors import BadInput

_TIMEOUT_S = 15.0
#: Files that are downloaded into the cache whole, and the longest of them by their names.
_WHOLE = (".json", ".jinja")
_LIMITS = {".index.json": MAX_INDEX_BYTES, "tokenizer.json": MAX_TOKENIZER_BYTES}
#: A relative path that stays inside.
_INSIDE = re.compile(r"(?!\.\.?(/|$))[^/\\\x00]+(/(?!\.\.?(/|$))[^/\\\x00]+)*")
_TOKEN_HINT = "set HF_TOKEN to a token that may read it"
_LOCAL_HINT = "or give a local directory or config.json"


class HubRepository:
    """One revision of a repository of the hub as a `Place`.

    Parameters
    ----------
    repo_id
        `organisation/model`.
    revision
        The commit.
    sizes
        Its files and their sizes in bytes; None where the hub does not tell.
    """

    def __init__(self, repo_id: str, revision: str, sizes: dict[str, int | None]) -> None:
        self.name = repo_id
        self.revision: str | None = revision
        self.source: Source = "hub"
        self.notes: tuple[str, ...] = ()
        self._sizes = sizes

    def open(self, name: str) -> ByteSource:
        """Open one of its files, from the cache if it is there.

        Raises
        ------
        BadInput
            If there is no such file, or the hub does not give it.
        """
        from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache

        if name not in self._sizes:
            raise NotFound(f"{self.name} has no {name}")
        title = f"{self.name}/{name}"
        cached = try_to_load_from_cache(self.name, name, revision=self.revision)
        if isinstance(cached, str):
            return LocalFile(cached, title)
        if name.endswith(_WHOLE):
            limit = next((most for end, most in _LIMITS.items() if name.endswith(end)), MAX_CONFIG_BYTES)
            if (self._sizes[name] or 0) > limit:
                raise BadInput(f"{title} is larger than {limit // 2**20} MiB")
            with _said_plainly(self.name), _no_progress_bars():
                path = hf_hub_download(self.name, name, revision=self.revision, endpoint=endpoint())
            return LocalFile(path, title)
        from willfit.checkpoints.ranged import RemoteFile

        url = hf_hub_url(self.name, name, revision=self.revision, endpoint=endpoint())
        return RemoteFile(url, title, _token_headers(), _TOKEN_HINT)


def endpoint() -> str:
    """The hub's address: `HF_ENDPOINT`, or the library's own."""
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or str(constants.ENDPOINT)


def is_offline(asked: bool) -> bool:
    """Whether the network is off, as was asked or as `HF_HUB_OFFLINE` says."""
    from huggingface_hub import constants

    return asked or bool(constants.HF_HUB_OFFLINE)


def read_hub(
    repo_id: str, revision: str | None = None, tag: str = "", file: str = "", offline: bool = False
) -> Checkpoint:
    """Read a model of the hub.

    Parameters
    ----------
    repo_id
        `organisation/model`.
    revision
        A branch, tag or commit; the main branch by default.
    tag
        Which of several GGUF files is meant: a quantization or a file name.
    file
        One file to read instead of what the repository as a whole is.
    offline
        Use only what is in the local cache. `HF_HUB_OFFLINE` does the same.

    Raises
    ------
    BadInput
        If there is no such model, it is gated or private, or the hub cannot be reached and the local cache
        does not have it (`Unreachable`).
    """
    place, names = hub_place(repo_id, revision, offline)
    return _read(place, names, tag, file)


def hub_place(
    repo_id: str, revision: str | None = None, offline: bool = False
) -> tuple[HubRepository | Folder, Collection[str]]:
    """A repository of the hub and its files, or what the local cache has of it. See `read_hub`.

    Raises
    ------
    BadInput
        As `read_hub` does.
    """
    if revision is not None and not _INSIDE.fullmatch(revision):
        raise BadInput(f"{revision[:80]!r} is no revision", "give a branch, tag or commit")
    if is_offline(offline):
        cached = _cached(repo_id, revision)
        if cached is None:
            raise Unreachable(
                f"{repo_id} is neither bundled nor in the local cache, and the network is off (offline mode)",
                "give a local directory or config.json",
            )
        return cached, _names(cached)
    try:
        repository, sizes = _repository(repo_id, revision)
    except Unreachable as error:
        cached = _cached(repo_id, revision, (f"read from the local cache: {error.message}",))
        if cached is None:
            raise
        return cached, _names(cached)
    return repository, sizes


def hub_id(url: str) -> tuple[str, str | None, str] | None:
    """The repository, revision and file that an address of the hub shows, None if it is another."""
    parts = urlsplit(url)
    hosts = {"huggingface.co", "www.huggingface.co", "hf.co", urlsplit(endpoint()).netloc.lower()}
    if parts.netloc.lower() not in hosts:
        return None
    path = [part for part in parts.path.split("/") if part]
    if len(path) < 2 or path[0] in (
        "datasets",
        "spaces",
        "api",
        "models",
        "docs",
        "blog",
        "papers",
        "collections",
    ):
        return None
    if len(path) >= 4 and path[2] in ("tree", "blob", "resolve", "raw"):
        file = "/".join(path[4:]) if path[2] != "tree" else ""
        return "/".join(path[:2]), path[3], file
    return "/".join(path[:2]), None, ""


def _read(place: HubRepository | Folder, names: Collection[str], tag: str, file: str) -> Checkpoint:
    return read_file(place, file) if file and file != "config.json" else read_place(place, names, tag)


def _repository(repo_id: str, revision: str | None) -> tuple[HubRepository, dict[str, int | None]]:
    from huggingface_hub import HfApi

    with _said_plainly(repo_id):
        info = HfApi(endpoint=endpoint()).model_info(
            repo_id, revision=revision, files_metadata=True, timeout=_TIMEOUT_S
        )
        sizes = {
            sibling.rfilename: sibling.size if isinstance(sibling.size, int) else None
            for sibling in info.siblings or ()
            if _INSIDE.fullmatch(sibling.rfilename)
        }
        return HubRepository(str(info.id or repo_id), str(info.sha or revision or "main"), sizes), sizes


def _cached(repo_id: str, revision: str | None, notes: tuple[str, ...] = ()) -> Folder | None:
    """The snapshot of a revision in the local cache, as `huggingface_hub` lays it out.

    Files are downloaded by commit, so that nothing may say which snapshot is the main branch's: then the newest is.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    with _said_plainly(repo_id):  # newer versions of the library check the id here
        name = repo_folder_name(repo_id=repo_id, repo_type="model")
    root = Path(constants.HF_HUB_CACHE) / name
    commit = revision or "main"
    with suppress(OSError, ValueError):  # a commit has no entry under `refs`
        commit = (root / "refs" / commit).read_text(encoding="ascii").strip()
    snapshot = root / "snapshots" / commit
    if revision is None and not snapshot.is_dir():
        with suppress(OSError, ValueError):  # there is no snapshot
            snapshot = max((root / "snapshots").iterdir(), key=lambda path: path.stat().st_mtime)
            commit = snapshot.name
    return Folder(snapshot, repo_id, "hub", commit, notes) if commit and snapshot.is_dir() else None


def _names(folder: Folder) -> list[str]:
    files = (path for path in folder.path.rglob("*") if path.is_file())
    return [path.relative_to(folder.path).as_posix() for path in files]


def _token_headers() -> dict[str, str]:
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    headers = build_hf_headers()
    return {name: value for name, value in headers.items() if name.lower() == "authorization"}


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    from huggingface_hub import utils

    if utils.are_progress_bars_disabled():  # type: ignore[attr-defined]
        yield
        return
    utils.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        utils.enable_progress_bars()  # type: ignore[attr-defined]


@contextmanager
def _said_plainly(repo_id: str) -> Iterator[None]:
    """Turn the library's errors into one line that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise Forbidden(
            f"{repo_id} is gated: its files are only given to who accepted its licence",
            f"accept it at {endpoint()}/{repo_id} and set HF_TOKEN, {_LOCAL_HINT}",
        ) from None
    except errors.RevisionNotFoundError:
        raise NotFound(f"{repo_id} has no such revision", "give a branch, tag or commit of it") from None
    except errors.RepositoryNotFoundError:
        raise NotFound(
            f"the hub has no model {repo_id}, or it is private",
            f"check the spelling, set HF_TOKEN if it is private, {_LOCAL_HINT}",
        ) from None
    except errors.HFValidationError:
        raise BadInput(
            f"{shortened(repo_id)} is no model id", f"write it as organisation/model, {_LOCAL_HINT}"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status == 404:
            raise NotFound(f"{repo_id}: not found on the hub (HTTP 404)", "check the spelling") from None
        if status in (401, 403):
            raise Forbidden(
                f"the hub does not give {repo_id} (HTTP {status})", f"{_TOKEN_HINT}, {_LOCAL_HINT}"
            ) from None
        raise Unreachable(
            f"the hub answers HTTP {status} for {repo_id}", f"try again later, {_LOCAL_HINT}"
        ) from None
    except Exception as error:  # connection errors of its HTTP client, answers that are not a hub's
        cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
        why = reason(cause if isinstance(cause, Exception) else error)
        raise Unreachable(
            f"{shortened(repo_id)} is not bundled, and there is no usable answer from {endpoint()}: {why}",
            f"check the network, {_LOCAL_HINT}",
        ) from None
