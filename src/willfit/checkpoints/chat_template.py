"""The chat template of a checkpoint, as text."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from willfit.checkpoints.gguf import GgufHeader
from willfit.checkpoints.jsonfile import parse_object
from willfit.checkpoints.source import LocalFile, read_all
from willfit.errors import BadInput

#: Files that have it, the newer first (`tokenization_utils_base.py: save_chat_templates`); the last is that of a
#: processor (`processing_utils.py`).
FILES = ("chat_template.jinja", "tokenizer_config.json", "chat_template.json")

#: Tokenizers' configs list all added tokens; templates are a few kB.
MOST_BYTES = 16 * 2**20

_KEY = "tokenizer.chat_template"


def chat_template_of(model: str, header: GgufHeader | None = None, revision: str | None = None) -> str | None:
    """The chat template, from a GGUF header, files beside the model, or the hub's local cache.

    Parameters
    ----------
    model
        A path or an id.
    header
        The model's GGUF header, if it has one.

    Returns
    -------
    The template; None if it is not at hand or cannot be read.
    """
    inside = header.metadata.get(_KEY) if header is not None else None
    if isinstance(inside, str) and inside:
        return inside
    path = os.path.expanduser(model)
    folder = Path(path) if os.path.isdir(path) else Path(path).parent if os.path.isfile(path) else None
    for name in FILES:
        file = folder / name if folder is not None else _cached(model, name, revision)
        if file is None or not file.is_file():
            continue
        with suppress(BadInput, UnicodeDecodeError):
            found = _read(file)
            if found:
                return found
    return None


def _read(path: Path) -> str | None:
    with LocalFile(path) as file:
        data = read_all(file, MOST_BYTES)
    if path.suffix == ".jinja":
        return data.decode()
    return template_in(parse_object(data, str(path)))


def template_in(config: Mapping[str, Any], tools: bool = False) -> str | None:
    """The template that a tokenizer's config holds; None if there is none.

    Parameters
    ----------
    tools
        Whether it is asked to show tools: some models have a template of its own for that.
    """
    found = config.get("chat_template")
    if isinstance(found, list):
        # Several by name (`tokenization_utils_base.py: get_chat_template`).
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = (named.get("tool_use") if tools else None) or named.get("default")
    return found if isinstance(found, str) else None


def _cached(model: str, name: str, revision: str | None) -> Path | None:
    """A file of a repository in the hub's cache; None if it is not there."""
    if model.count("/") != 1 or ":" in model or model.startswith((".", "/", "~")):
        return None
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(model, name, revision=revision)
    except ValueError:
        return None
    return Path(found) if isinstance(found, str) else None
