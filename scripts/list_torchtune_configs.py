"""Write what torchtune's named configs say, from the source trees of its released versions.

    python scripts/list_torchtune_configs.py TREE... > src/willfit/launch/data/torchtune_configs.jsonl

Each TREE is a folder `torchtune-<version>` with that version's `torchtune/` and `recipes/`, oldest first. Nothing of
it is run: the names come from the literals of `torchtune/_recipe_registry.py`, the values from the YAML files.

Keys that cannot change memory are left out.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from named_configs import flat, write

from willfit.launch.training.torchtune_keys import QUIET

#: Recipes that train nothing.
_OTHER = {
    "generate",
    "eleuther_eval",
    "quantize",
    "alpaca_generate",
    "dev/generate_v2",
    "dev/generate_v2_distributed",
}


def names(tree: Path) -> dict[str, str]:
    """The file of each name that a version's registry has."""
    found: dict[str, str] = {}
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
            found.setdefault(said["name"], said["file_path"])
    return found


def main(trees: list[Path]) -> None:
    versions = [tree.name.rpartition("-")[2] for tree in trees]
    said: dict[str, dict[str, dict[str, Any]]] = {}
    for version, tree in zip(versions, trees, strict=True):
        for name, path in names(tree).items():
            file = tree / "recipes" / "configs" / path
            if file.exists():
                values = flat(yaml.safe_load(file.read_text(encoding="utf-8")))
                said.setdefault(name, {})[version] = {
                    key: value
                    for key, value in values.items()
                    if value is not None and not QUIET.fullmatch(key)
                }
    write(versions, said)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
