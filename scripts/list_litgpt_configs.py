"""Write what the files of LitGPT's `config_hub` say, from checkouts of its versions.

    python scripts/list_litgpt_configs.py TREE... > src/willfit/launch/data/litgpt_configs.jsonl

Each TREE is a folder `litgpt-<version>`, oldest first. Keys that cannot change memory are left out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from named_configs import flat, write

from willfit.launch.flags import flag_table


def quiet(key: str) -> bool:
    """Whether a key cannot change memory, as the table of flags says."""
    flag = flag_table("litgpt_flags.txt").flags.get("--" + key.replace("_", "-"))
    named = key.startswith(("data.", "eval.", "log.")) or key in ("data", "float32_matmul_precision")
    return named or (flag is not None and flag.quiet) or key.startswith("optimizer.init_args.")


def main(trees: list[Path]) -> None:
    versions = [tree.name.rpartition("-")[2] for tree in trees]
    said: dict[str, dict[str, dict[str, Any]]] = {}
    for version, tree in zip(versions, trees, strict=True):
        for path in sorted(tree.glob("config_hub/**/*.yaml")):
            values = flat(yaml.safe_load(path.read_text(encoding="utf-8")))
            name = str(path.relative_to(tree / "config_hub"))
            said.setdefault(name, {})[version] = {
                key: value for key, value in values.items() if value is not None and not quiet(key)
            }
    write(versions, said)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
