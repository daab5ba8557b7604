"""Reading the YAML and JSON files that engines take settings from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from willfit.errors import BadInput
from willfit.launch.flags import FlagTable

#: A file of settings is small; more is not read.
_LARGEST_FILE = 2**20


def read_settings(path: Path, *, once: bool = False) -> dict[str, Any] | None:
    """The settings of a YAML file; None if it is not there.

    Parameters
    ----------
    once
        A name that stands there twice is an error. Programs that read such a file take the last.

    Raises
    ------
    BadInput
        If it is no YAML file with names and values.
    """
    import yaml  # type: ignore[import-untyped]

    text = _bytes(path)
    if text is None:
        return None
    try:
        if once:
            _refuse_twice(yaml.compose(text, yaml.SafeLoader), path)
        found = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadInput(f"{path} is not YAML: {' '.join(str(error).split())[:100]}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise BadInput(f"{path} does not hold names and values", "write max_batch_size: 64")
    return {str(name): value for name, value in found.items()}


def _refuse_twice(node: Any, path: Path) -> None:
    """Raise `BadInput` where a mapping of a YAML file has a name twice."""
    children = [part for pair in node.value for part in pair] if getattr(node, "id", "") == "mapping" else []
    if getattr(node, "id", "") == "sequence":
        children = node.value
    names = [name.value for name in children[::2] if node.id == "mapping" and name.id == "scalar"]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"{path} has {name!r} twice in one place", "leave one of the two out")
    for child in children:
        _refuse_twice(child, path)


def read_json_settings(path: Path) -> dict[str, Any] | None:
    """The settings of a JSON file; None if it is not there.

    Raises
    ------
    BadInput
        If it is no JSON file with names and values.
    """
    text = _bytes(path)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not JSON: {' '.join(str(error).split())[:100]}") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path} does not hold names and values")
    return found


def _bytes(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if len(text) > _LARGEST_FILE:
        raise BadInput(f"{path} is too large for a file of settings")
    return text


def with_config(
    words: Sequence[str], table: FlagTable, program: str, *, keep_first: bool
) -> tuple[list[str], list[str]]:
    """A command line with the flags of its `--config FILE` in front, so that those of the command win; and notes.

    vLLM (`argparse_utils.py: _pull_args_from_config`) and SGLang (`server_args_config_parser.py`) look for the word
    `--config` alone: `--config=FILE` is not read by either.

    Parameters
    ----------
    keep_first
        A model that stands first stays there (vLLM).

    Raises
    ------
    BadInput
        If several files are named, or none, or it cannot be read.
    """
    joined = [word for word in words if word.startswith("--config=")]
    if joined:
        return list(words), [f"{program} reads no file from {joined[0][:60]}; write it as two words"]
    if "--config" not in words:
        return list(words), []
    index = words.index("--config")
    if words.count("--config") > 1 or index + 1 >= len(words):
        raise BadInput(f"{program}: --config takes one file")
    path, rest = words[index + 1], [*words[:index], *words[index + 2 :]]
    if Path(path).suffix.lower() not in (".yaml", ".yml"):
        raise BadInput(f"{program}: --config is {path[:60]!r}, expected a file that ends in .yaml")
    found = read_settings(Path(path).expanduser())
    if found is None:
        return rest, [f"{path} (--config) is not here, so what it sets is not counted"]
    first = 1 if keep_first and rest and not rest[0].startswith("-") else 0
    if first:
        found.pop("model", None)
    return [*rest[:first], *_as_words(found, table), *rest[first:]], []


def _as_words(found: Mapping[str, Any], table: FlagTable) -> list[str]:
    words: list[str] = []
    for name, value in found.items():
        flag = table.flags.get("--" + name.replace("_", "-"))
        if isinstance(value, bool) and (flag is None or flag.takes in ("switch", "toggle", "boolean")):
            if value:
                words.append(f"--{name}")
            elif flag is not None and flag.takes == "toggle":
                words.append(f"--no-{name}")
        elif isinstance(value, list):
            words += [f"--{name}", *map(str, value)] if value else []
        elif isinstance(value, dict):
            words += [f"--{name}", json.dumps(value)]
        else:
            words += [f"--{name}", str(value).lower() if isinstance(value, bool) else str(value)]
    return words
