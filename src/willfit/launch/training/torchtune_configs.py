"""torchtune's configs that are called by name, and the models that its builders make.

`data/torchtune_configs.jsonl` is written by `scripts/list_torchtune_configs.py`, `data/torchtune_models.txt` by hand
from `torchtune/models/*/_model_builders.py`.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from willfit.engines.versions import parse_version

_DATA = Path(__file__).parents[1] / "data"

#: The newest release; what comes behind it in the file is its development version.
NEWEST = "0.6.1"


class Named(NamedTuple):
    """A named config.

    Attributes
    ----------
    values
        What it says, names joined with dots.
    version
        The version whose config it is.
    asked
        Whether the version that was asked for has it.
    """

    values: dict[str, Any]
    version: str
    asked: bool


def config_named(name: str, version: str | None) -> Named | None:
    """A config by its name, as a version has it; None if no version does.

    Where the version lacks it, it is that of the nearest version that has it.
    """
    versions, lines = _lines()
    line = next((line for line in lines if line.startswith(f'{{"name":"{name}",')), None)
    if line is None:
        return None
    found = json.loads(line)
    wanted = parse_version(version or NEWEST)
    says: dict[str, dict[str, Any]] = found["says"]
    first, last = next(iter(says)), found["last"]
    values: dict[str, Any] = {}
    of = first
    for since, changes in says.items():
        if since == first or parse_version(since) <= wanted:
            values.update(changes)
            of = since
    asked = parse_version(first) <= wanted and (
        wanted <= parse_version(last) or last == versions[-1] or wanted < parse_version(_after(versions, last))
    )
    if not asked:
        of = first if wanted < parse_version(first) else last
    return Named({key: value for key, value in values.items() if value is not None}, of, asked)


def config_names() -> list[str]:
    """Names of all configs, of all versions."""
    return [json.loads(line)["name"] for line in _lines()[1]]


def model_of(builder: str) -> str | None:
    """A published checkpoint of the architecture that a builder makes; None for one that is not known."""
    return builders().get(builder)


@cache
def builders() -> dict[str, str]:
    """All builders, without `lora_` and `qlora_`, with a checkpoint of what each makes."""
    lines = (_DATA / "torchtune_models.txt").read_text(encoding="utf-8").splitlines()
    return {words[0]: words[1] for words in map(str.split, lines) if words[0] != "#"}


@cache
def _lines() -> tuple[tuple[str, ...], tuple[str, ...]]:
    first, *lines = (_DATA / "torchtune_configs.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(first)["versions"]), tuple(lines)


def _after(versions: tuple[str, ...], version: str) -> str:
    return versions[versions.index(version) + 1]
