"""From what a user typed to a `Checkpoint`."""

from __future__ import annotations

import os
import re
from dataclasses import replace

from willfit.checkpoints import catalogue
from willfit.checkpoints.catalogue import CatalogueEntry
from willfit.checkpoints.checkpoint import Checkpoint
from willfit.checkpoints.config import Config
from willfit.checkpoints.folder import read_path
from willfit.checkpoints.source import NotFound, Unreachable
from willfit.errors import BadInput
from willfit.file_types import LATEST, USUAL, quantization

_WEB = re.compile(r"https?://", re.IGNORECASE)
_PREFIX = re.compile(r"(?P<hub>hf|huggingface|ms|modelscope):(?://)?(?P<rest>.+)", re.IGNORECASE)
_ID = re.compile(
    r"(?P<id>[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?)(?:@(?P<revision>[\w./+-]+))?(?::(?P<tag>[\w./+-]+))?",
    re.ASCII,
)
#: The catalogue has configs alone, so that a model of vectors shows by its name.
_EMBEDS = re.compile(r"^(?!.*rerank).*(embed|/(gte|e5|bge)[-_])", re.IGNORECASE)
#: How Ollama and llama.cpp name the hub in front of an id.
_HUB_FIRST = re.compile(r"^(?:hf|huggingface)\.co/", re.IGNORECASE)
_FILE_ENDINGS = (".gguf", ".safetensors", ".json", ".bin", ".pt", ".pth")


def locate(text: str, revision: str | None = None, offline: bool = False) -> Checkpoint:
    """Find the model that a user means and read what describes it.

    In this order: a web address; a hub named by a prefix (`hf:`, `modelscope:`); a path that exists, or a GGUF
    file that does not, by its name; the bundled catalogue; the Hugging Face hub.

    Parameters
    ----------
    text
        A path, an address, or an id: `organisation/model`, `model@revision`, `organisation/model:Q4_K_M`. A
        quantization behind the colon is a GGUF file of the repository, or, where that has none, the file that would be
        made of the model.
    revision
        A branch, tag or commit of a hub. With one, the catalogue is not asked.
    offline
        Never use the network.

    Raises
    ------
    BadInput
        If nothing is found, or what is found cannot be used.
    """
    text = text.strip()
    if not text or "\x00" in text or len(text) > 4096:
        raise BadInput(
            "no model was given" if not text else "that is no model name", "give a hub id or a path"
        )
    text = _HUB_FIRST.sub("hf:", text)
    if _WEB.match(text):
        return _from_web(text, revision, offline)
    prefix = _PREFIX.fullmatch(text)
    if prefix is None and (os.path.lexists(os.path.expanduser(text)) or _looks_like_a_path(text)):
        return _from_path(text, offline)
    match = _ID.fullmatch(prefix["rest"] if prefix else text)
    if match is None:
        raise BadInput(
            f"{text[:120]!r} is neither a path that exists nor a model id", "write organisation/model"
        )
    revision = revision or match["revision"]
    tag = match["tag"] or ""
    if prefix is not None and prefix["hub"].lower() in ("ms", "modelscope"):
        from willfit.checkpoints.modelscope import read_modelscope

        return read_modelscope(match["id"], revision, tag, offline=offline)
    if prefix is None and revision is None:
        entry = catalogue.find(match["id"])
        if entry is not None:
            return _from_catalogue(entry, tag)
    return _from_hub(match["id"], revision, tag, offline)


def _from_path(text: str, offline: bool) -> Checkpoint:
    """The model at a path; of a GGUF file that is not here, the model that its name says."""
    from willfit.checkpoints.gguf_names import guess

    try:
        return read_path(text)
    except NotFound:
        # Of a split file that is here, another one may be missing.
        meant = None if os.path.lexists(os.path.expanduser(text)) else guess(text)
        if meant is None:
            raise
    note = f"{text[:120]} is not here; by its name it is {meant.model} in {meant.quantization}"
    checkpoint = locate(meant.reference, offline=offline)
    return replace(checkpoint, notes=(note, *checkpoint.notes))


def _from_catalogue(entry: CatalogueEntry, tag: str, notes: tuple[str, ...] = ()) -> Checkpoint:
    """A bundled model; with a tag as the GGUF file of that quantization."""
    if tag.lower() == LATEST:
        raise BadInput(
            f"{entry.id} has no GGUF files", f"name a repository that has, or {entry.id}:{USUAL[0]}"
        )
    if tag:
        quantization(tag)
    config = Config(entry.config, f"{entry.id}: config.json")
    embeds = _EMBEDS.search(entry.id) is not None
    return Checkpoint(
        entry.id, "catalogue", config, file_type=tag, embeds=embeds, facts=entry.facts, notes=notes
    )


def _from_hub(name: str, revision: str | None, tag: str, offline: bool) -> Checkpoint:
    from willfit.checkpoints.gguf_names import asked_quantization, original
    from willfit.checkpoints.hub import read_hub
    from willfit.checkpoints.stored_names import stored_as

    try:
        return read_hub(name, revision, tag, offline=offline)
    except (NotFound, Unreachable) as error:
        entry = original(name) if tag and isinstance(error, Unreachable) else None
        asked = asked_quantization(tag, entry) if entry else None
        if entry is not None and asked is not None:
            note = f"{name} could not be read: taken for {entry.id}, made into {asked}"
            return _from_catalogue(entry, asked, (note,))
        stored = stored_as(name, revision) if isinstance(error, Unreachable) and not tag else None
        if stored is not None:
            kept = f", stored as {stored.format_name}" if stored.format_name else ""
            note = f"{name} could not be read: taken for {stored.entry.id}{kept}"
            return replace(_from_catalogue(stored.entry, "", (note,)), format_name=stored.format_name)
        similar = catalogue.similar_ids(name) if revision is None and not tag else []
        if not similar and "/" not in name:
            raise type(error)(
                error.message,
                f"write organisation/model, or willfit --help for commands; otherwise {error.hint}",
            ) from None
        if not similar:
            raise
        raise type(error)(
            error.message, f"did you mean {' or '.join(similar)}? Otherwise {error.hint}"
        ) from None


def _from_web(url: str, revision: str | None, offline: bool) -> Checkpoint:
    from willfit.checkpoints.hub import hub_id, read_hub
    from willfit.checkpoints.modelscope import modelscope_id, read_modelscope
    from willfit.checkpoints.web import read_url

    try:
        on_hub, on_modelscope = hub_id(url), modelscope_id(url)
    except ValueError:
        raise BadInput(f"{url[:200]} is not an address that can be fetched") from None
    if on_hub is not None:
        repo_id, shown, file = on_hub
        return read_hub(repo_id, revision or shown, file=file, offline=offline)
    if on_modelscope is not None:
        repo_id, shown, file = on_modelscope
        return read_modelscope(repo_id, revision or shown, file=file, offline=offline)
    if offline:
        raise Unreachable(
            f"{url.partition('?')[0][:200]} cannot be fetched: the network is off (offline mode)"
        )
    return read_url(url)


def _looks_like_a_path(text: str) -> bool:
    """Whether the text can only be meant as a path, so that the error for a typing mistake is about that."""
    return (
        text.startswith(("/", "./", "../", "~", ".\\", "..\\"))
        or text in (".", "..")
        or "\\" in text
        or (":" not in text and (text.count("/") > 1 or text.lower().endswith(_FILE_ENDINGS)))
    )
