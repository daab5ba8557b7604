"""Write what torchtune's named configs say, from the source trees of its released versions.

    python scripts/list_torchtune_configs.py TREE... > src/willfit/launch/data/torchtune_configs.jsonl

Each TREE is a folder `torchtune-<version>` with that version's `torchtune/` and `recipes/`, oldest first. Nothing of
it is run: the names come from the literals of `torchtune/_recipe_registry.py`, the values from the YAML files.

Written is a line for each name: the recipes that list it, the versions that have it, and what it says. Keys that cannot
change memory are left out; from the second version on only what changed is written, null for a key that went.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from willfit.launch.training.torchtune_keys import QUIET

#: Recipes that train nothing.
_OTHER = {"generate", "eleuther_eval", "quantize", "alpaca_generate", "dev/generate_v2", "dev/generate_v2_distributed"}


def names(tree: Path) -> dict[str, tuple[str, set[str]]]:
    """File and recipes of each name that a version's registry has."""
    found: dict[str, tuple[str, set[str]]] = {}
    module = ast.parse((tree / "torchtune" / "_recipe_registry.py").read_text(encoding="utf-8"))
    for node in ast.walk(module):
        if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "Recipe"):
            continue
        words = {word.arg: word.value for word in node.keywords}
        recipe = ast.literal_eval(words["name"])
        if recipe in _OTHER:
            continue
        for config in getattr(words["configs"], "elts", []):
            said = {word.arg: ast.literal_eval(word.value) for word in config.keywords}
            found.setdefault(said["name"], (said["file_path"], set()))[1].add(recipe)
    return found


def flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Names with dots, and their values."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{before}{name}.")
        else:
            found[before + name] = value
    return found


def main(trees: list[Path]) -> None:
    versions = [tree.name.rpartition("-")[2] for tree in trees]
    print(json.dumps({"versions": versions}))
    said: dict[str, dict[str, dict[str, Any]]] = {}
    recipes: dict[str, set[str]] = {}
    for version, tree in zip(versions, trees, strict=True):
        for name, (path, used) in names(tree).items():
            file = tree / "recipes" / "configs" / path
            if not file.exists():
                continue
            values = flat(yaml.safe_load(file.read_text(encoding="utf-8")))
            kept = {
                key: value for key, value in values.items() if value is not None and not QUIET.fullmatch(key)
            }
            said.setdefault(name, {})[version] = kept
            recipes.setdefault(name, set()).update(used)
    for name in sorted(said):
        states: dict[str, dict[str, Any]] = {}
        before: dict[str, Any] = {}
        for version, values in said[name].items():
            changes = {key: value for key, value in values.items() if before.get(key, ...) != value}
            changes |= {key: None for key in before if key not in values}
            if changes or not states:
                states[version] = changes
            before = values
        line = {"name": name, "recipes": sorted(recipes[name]), "last": list(said[name])[-1], "says": states}
        print(json.dumps(line, separators=(",", ":")))


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
