"""Writing configs that programs call by name: a line for each, from its second version on only what changed."""

from __future__ import annotations

import json
from typing import Any


def flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Names with dots, and their values."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{before}{name}.")
        else:
            found[before + name] = value
    return found


def write(versions: list[str], said: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Print the file: the versions, then for each name what each version says; null for a key that went."""
    print(json.dumps({"versions": versions}))
    for name in sorted(said):
        states: dict[str, dict[str, Any]] = {}
        before: dict[str, Any] = {}
        for version, values in said[name].items():
            changes = {key: value for key, value in values.items() if before.get(key, ...) != value}
            changes |= {key: None for key in before if key not in values}
            if changes or not states:
                states[version] = changes
            before = values
        line = {"name": name, "last": list(said[name])[-1], "says": states}
        print(json.dumps(line, separators=(",", ":")))
