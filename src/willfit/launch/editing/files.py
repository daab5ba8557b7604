"""Changing a key in the text of a file that a command names, and no other byte of it; nothing is written there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import symlink
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from willfit.launch.editing.place import Place

_MOST_BYTES = 2**20
_SETTINGS = (".yaml", ".yml", ".json")

#: Flags of TensorRT-LLM that its file has inside a section (`llmapi/llm_args.py: KvCacheConfig`).
_SECTIONS = {
    "free-gpu-memory-fraction": ("kv_cache_config", "free_gpu_memory_fraction"),
    "kv-cache-dtype": ("kv_cache_config", "dtype"),
}


class SettingsFile(NamedTuple):
    """A file that a command takes settings from.

    Attributes
    ----------
    name
        As the command names it.
    text
        What it holds.
    named
        It is a word of the command, and not what is taken where none is named.
    whole
        It stands for all of the program's arguments, so that there can be no flags beside it.
    """

    name: str
    text: str
    named: bool = True
    whole: bool = False


def settings_file(place: Place) -> SettingsFile | None:
    """The file that a command takes settings from; None if it names none that is here."""
    if place.script is not None:
        return None
    own = place.words[place.start :]
    if place.launcher == "ollama":
        if own[:1] != ("create",):
            return None
        flags = [at for at, word in enumerate(own[:-1]) if word in ("-f", "--file")]
        return _read(own[flags[-1] + 1] if flags else "Modelfile", bool(flags), True)
    for at, word in enumerate(own):
        name = word.rpartition("=")[2] if word.startswith("-") else word
        if name.endswith(_SETTINGS) and not own[at - 1].startswith("--deepspeed"):
            return _read(name, True, place.launcher == "hugging_face" and not at)
    return None


def _read(name: str, named: bool, whole: bool) -> SettingsFile | None:
    try:
        with Path(name).expanduser().open(encoding="utf-8", newline="") as file:
            text = file.read(_MOST_BYTES + 1)
    except (OSError, UnicodeDecodeError, ValueError):
        return None
    return SettingsFile(name, text, named, whole) if len(text) <= _MOST_BYTES else None


def with_parameter(text: str, name: str, value: str) -> str:
    """A Modelfile with a PARAMETER, in the place of its last one of that name or behind everything else."""
    lines = list(re.finditer(rf"^[ \t]*PARAMETER[ \t]+{name}[ \t]+(\S+)", text, re.IGNORECASE | re.MULTILINE))
    if lines:
        start, end = lines[-1].span(1)
        return text[:start] + value + text[end:]
    return f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}PARAMETER {name} {value}\n"


def with_key(file: SettingsFile, names: Sequence[str], value: str | None) -> str | None:
    """The text of a file of settings with another value for a key; None if it has no such key.

    Parameters
    ----------
    names
        What the key may be called: spellings of a flag.
    value
        None for true.
    """
    written = _written(file, "true" if value is None else value)
    root = _mapping(file.text)
    for name in names if root is not None else ():
        bare = name.lstrip("-").replace("_", "-")
        for path in ((bare,), tuple(bare.split(".")), _SECTIONS.get(bare, ())):
            node = _at(root, path)
            if node is not None:
                start, end = node.start_mark.index, node.end_mark.index
                return file.text[:start] + written + file.text[end:]
    return None


def with_new_key(file: SettingsFile, name: str, value: str | None) -> str | None:
    """The text of a file of settings with one more key; None if it does not hold names and values."""
    key, written = name.lstrip("-").replace("-", "_"), _written(file, "true" if value is None else value)
    root = _mapping(file.text)
    if root is None or not root.value:
        return None
    end = root.value[-1][1].end_mark.index
    if file.name.endswith(".json") or root.flow_style:
        return f"{file.text[:end]},\n  {json.dumps(key)}: {written}{file.text[end:]}"
    return f"{file.text.rstrip()}\n{key}: {written}\n"


def _mapping(text: str) -> Any:
    """The names and values of a file, with where they stand; JSON is YAML as well."""
    import yaml  # type: ignore[import-untyped]

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
    return node if isinstance(node, yaml.MappingNode) else None


def _at(node: Any, path: Sequence[str]) -> Any:
    """The scalar at a path; None if there is none."""
    for step in path:
        inside = node.value if isinstance(getattr(node, "value", None), list) else []
        pairs = (pair for pair in inside if isinstance(pair, tuple))
        found = [value for key, value in pairs if str(key.value).replace("_", "-") == step.replace("_", "-")]
        if not found:
            return None
        node = found[-1]
    return node if path and isinstance(node.value, str) else None


def _written(file: SettingsFile, value: str) -> str:
    """A value as the file's language has it."""
    if file.name.endswith(".json") and not re.fullmatch(r"-?\d+(\.\d+)?|true|false|null", value):
        return json.dumps(value)
    return value


@contextmanager
def standing_in(words: Sequence[str], file: SettingsFile | None, text: str | None) -> Iterator[list[str]]:
    """A command that names an edited copy of its file, which for the time being lies beside links to its neighbours."""
    if file is None or text is None:
        yield list(words)
        return
    path = Path(file.name).expanduser()
    with TemporaryDirectory() as folder:
        for neighbour in path.resolve().parent.iterdir():
            if neighbour.name != path.name:
                symlink(neighbour, Path(folder, neighbour.name))
        copy = Path(folder, path.name)
        copy.write_text(text, encoding="utf-8", newline="")
        if not file.named:
            yield [*words, "-f", str(copy)]
            return
        yield [
            str(copy) if word == file.name
            else word[: -len(file.name)] + str(copy) if word.endswith(f"={file.name}")
            else word
            for word in words
        ]  # fmt: skip
