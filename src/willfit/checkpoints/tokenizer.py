"""The tokenizer of a checkpoint: where its `tokenizer.json` lies, or the vocabulary of its GGUF file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from willfit.checkpoints.chat_template import FILES, MOST_BYTES, template_in
from willfit.checkpoints.checkpoint import Checkpoint
from willfit.checkpoints.folder import Folder
from willfit.checkpoints.gguf import read_header
from willfit.checkpoints.gguf_vocabulary import KEYS, special_tokens_of, tokenizer_of
from willfit.checkpoints.hub import endpoint, hub_place, is_offline
from willfit.checkpoints.jsonfile import MAX_TOKENIZER_BYTES, parse_object
from willfit.checkpoints.reading import Place
from willfit.checkpoints.source import Forbidden, NotFound, Unreachable, read_all
from willfit.errors import BadInput

_TOKENIZER = "tokenizer.json"
_GIVE = "give one with --tokenizer, as a tokenizer.json or the directory that holds it"


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """A tokenizer as its files have it. Nothing of it has been run.

    Attributes
    ----------
    name
        Where it was read, for people.
    tokenizer
        The text of a `tokenizer.json`.
    template, tools_template
        The chat template, and that for prompts with tools; None if there is none.
    special
        Special tokens by their names in a template: `bos_token`, `eos_token`, ...
    """

    name: str
    tokenizer: str = field(repr=False)
    template: str | None = field(default=None, repr=False)
    tools_template: str | None = field(default=None, repr=False)
    special: Mapping[str, str] = field(default_factory=dict)


def tokenizer_files(
    checkpoint: Checkpoint, given: str | None = None, offline: bool = False
) -> TokenizerFiles:
    """Read the tokenizer of a model.

    In this order: the one that was given; the vocabulary of the GGUF file; the `tokenizer.json` beside the model's
    files, of a bundled model in the hub's cache or on the hub.

    Parameters
    ----------
    given
        A `tokenizer.json`, or a directory that holds one.
    offline
        Never use the network.

    Raises
    ------
    BadInput
        If there is none, it is larger than `MAX_TOKENIZER_BYTES`, or is no JSON.
    """
    if given is not None:
        return _given(given)
    if checkpoint.gguf is not None and checkpoint.place is not None:
        return _from_gguf(checkpoint.place, checkpoint.file)
    if checkpoint.place is not None:
        return _from_place(checkpoint.place)
    try:
        place, _ = hub_place(checkpoint.model, checkpoint.revision, offline)
        return _from_place(place)
    except (Unreachable, Forbidden) as error:
        why = (
            error.message if isinstance(error, Forbidden) else f"there is no usable answer from {endpoint()}"
        )
        if is_offline(offline):
            why = "the network is off (offline mode)"
        raise type(error)(
            f"{checkpoint.model} is bundled without its tokenizer, the local cache has none, and {why}", _GIVE
        ) from None


def _given(text: str) -> TokenizerFiles:
    path = Path(os.path.expanduser(text))
    if path.is_dir():
        return _from_place(Folder(path, text))
    if not os.path.lexists(path):
        raise NotFound(f"--tokenizer {text[:120]} does not exist", "give a tokenizer.json or its directory")
    if path.suffix.lower() == ".gguf":
        return _from_gguf(Folder(path.parent, text), path.name)
    return _from_place(Folder(path.parent, text), path.name)


def _from_place(place: Place, name: str = _TOKENIZER) -> TokenizerFiles:
    try:
        data = _whole(place, name, MAX_TOKENIZER_BYTES)
    except NotFound:
        raise NotFound(f"{place.name} has no {name}", _GIVE) from None
    try:
        tokenizer = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{place.name}: {name} is not UTF-8 text") from None
    config: dict[str, Any] = {}
    template = tools_template = None
    for file in FILES:
        try:
            found = _whole(place, file, MOST_BYTES)
        except NotFound:
            continue
        if file.endswith(".jinja"):
            template = tools_template = found.decode("utf-8", errors="replace")
            continue
        fields = parse_object(found, f"{place.name}: {file}")
        config = config or fields
        template = template or template_in(fields)
        tools_template = tools_template or template_in(fields, tools=True)
    return TokenizerFiles(
        f"{place.name}: {name}", tokenizer, template, tools_template, _special_tokens(config)
    )


def _from_gguf(place: Place, name: str) -> TokenizerFiles:
    source = place.open(name)
    try:
        metadata = read_header(source, keep=KEYS).metadata
    finally:
        source.close()
    template = metadata.get("tokenizer.chat_template")
    template = template if isinstance(template, str) and template else None
    tools = metadata.get("tokenizer.chat_template.tool_use")
    return TokenizerFiles(
        source.name,
        tokenizer_of(metadata, source.name),
        template,
        tools if isinstance(tools, str) and tools else template,
        special_tokens_of(metadata),
    )


def _whole(place: Place, name: str, limit: int) -> bytes:
    source = place.open(name)
    try:
        return read_all(source, limit)
    finally:
        source.close()


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Tokens that a tokenizer's config names, each a text or a record with its `content`."""
    found = {}
    for key, value in config.items():
        content = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(content, str):
            found[key] = content
    return found
