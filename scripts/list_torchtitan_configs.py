"""Write what torchtitan's own configs say, from the source trees of its versions.

    python scripts/list_torchtitan_configs.py TREE... > src/willfit/launch/data/torchtitan_configs.jsonl

Each TREE is a folder `torchtitan-<version>`, oldest first. Up to 0.2 configs are TOML files: they are named by their
model's folder and their file. Since 0.3 they are functions of `config_registry.py`, which are read, not run: calls of
config classes with keywords, and fields that are set afterwards. Both are written with the keys of the TOML files.
Keys that cannot change memory are left out.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path
from typing import Any

from named_configs import flat, write

from willfit.launch.flags import flag_table

#: What later versions call the parts of a config, in the words of the TOML files.
_CHECKPOINTING = {"SelectiveAC": "selective", "FullAC": "full"}


def quiet(key: str) -> bool:
    """Whether a key cannot change memory, as the table of flags says."""
    flag = flag_table("torchtitan_flags.txt").flags.get("--" + key.replace("_", "-"))
    return flag is not None and flag.quiet


def files(tree: Path) -> dict[str, dict[str, Any]]:
    """The TOML files of a version."""
    found = {}
    for path in [*tree.glob("train_configs/*.toml"), *tree.glob("torchtitan/models/*/train_configs/*.toml")]:
        if "flux" not in str(path):
            outer = path.parents[1].name if path.parents[1] != tree else "train_configs"
            found[f"{outer}/{path.stem}"] = flat(tomllib.loads(path.read_text(encoding="utf-8")))
    return found


class Registry:
    """The functions of a `config_registry.py`."""

    def __init__(self, module: str, path: Path) -> None:
        self.module = module
        self.functions = {
            node.name: node
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
        }

    def of(self, name: str) -> dict[str, Any]:
        """What a function's config says."""
        values: dict[str, Any] = {}
        variables: dict[str, ast.expr] = {}
        for line in self.functions[name].body:
            if isinstance(line, ast.Return) and isinstance(line.value, ast.Call):
                values = self.trainer(line.value, variables)
            elif isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                variables[line.targets[0].id] = line.value
                called = ast.unparse(line.value.func) if isinstance(line.value, ast.Call) else ""
                if called in self.functions:
                    values = self.of(called)
            elif isinstance(line, ast.Assign) and ast.unparse(line.targets[0]).startswith("config."):
                place = ast.unparse(line.targets[0]).removeprefix("config.")
                values |= self.field(place, line.value, variables)
        return values

    def trainer(self, call: ast.Call, variables: dict[str, ast.expr]) -> dict[str, Any]:
        """The fields of a call that makes a config."""
        name = ast.unparse(call.func)
        if name in self.functions:
            return self.of(name)
        found: dict[str, Any] = {}
        for word in call.keywords:
            if word.arg:
                found |= self.field(word.arg, word.value, variables)
        return found

    def field(self, place: str, value: ast.expr, variables: dict[str, ast.expr]) -> dict[str, Any]:
        """One field, with the fields inside it."""
        if isinstance(value, ast.Name) and value.id in variables:
            value = variables[value.id]
        if not isinstance(value, ast.Call):
            try:
                return {place: ast.literal_eval(value)}
            except ValueError:
                return {}
        name = ast.unparse(value.func)
        if place == "model_spec":
            return self.model(value)
        if place == "loss":
            return {"loss": name.removesuffix(".Config")}
        if place == "activation_checkpoint":
            mode = _CHECKPOINTING.get(name.removesuffix(".Config"), name.removesuffix(".Config"))
            return {f"{place}.mode": mode} | (
                {f"{place}.selective_ac_option": "op"} if mode == "selective" else {}
            )
        if place == "optimizer":
            known = {"default_adamw": "AdamW"}
            return {f"{place}.name": known.get(name, name)}
        found: dict[str, Any] = {}
        for word in value.keywords:
            if word.arg:
                found |= self.field(f"{place}.{word.arg}", word.value, variables)
        return found

    def model(self, call: ast.Call) -> dict[str, Any]:
        """The model, and what its layers are replaced with."""
        found: dict[str, Any] = {"model.name": self.module, "model.flavor": ast.literal_eval(call.args[0])}
        for word in call.keywords:
            if word.arg == "converters" and isinstance(word.value, ast.List):
                names = [ast.unparse(one.func) for one in word.value.elts if isinstance(one, ast.Call)]
                found["model.converters"] = [name.removesuffix(".Config") for name in names]
                for one in word.value.elts:
                    for inner in one.keywords if isinstance(one, ast.Call) else ():
                        if inner.arg in ("recipe_name", "rank", "alpha", "target_modules"):
                            found[f"model.converter.{inner.arg}"] = ast.literal_eval(inner.value)
            elif word.arg in ("attn_backend", "moe_comm_backend") and isinstance(word.value, ast.Constant):
                found[f"model.{word.arg}"] = word.value.value
        return found


def main(trees: list[Path]) -> None:
    versions = [tree.name.rpartition("-")[2] for tree in trees]
    said: dict[str, dict[str, dict[str, Any]]] = {}
    for version, tree in zip(versions, trees, strict=True):
        found = files(tree)
        for path in tree.glob("torchtitan/models/*/config_registry.py"):
            registry = Registry(path.parent.name, path)
            names = [name for name in registry.functions if name[0] != "_"]
            found |= {name: registry.of(name) for name in names}
        for name, values in found.items():
            kept = {key: value for key, value in values.items() if not quiet(key) and value is not None}
            if "model.flavor" in kept and kept["model.name"] != "flux":
                said.setdefault(name, {})[version] = kept
    write(versions, said)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
