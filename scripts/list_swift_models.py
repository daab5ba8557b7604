"""Write which model each `--model_type` of ms-swift 1 and 2 means, from its source trees.

    python scripts/list_swift_models.py TREE... > src/willfit/launch/data/swift_models.txt

Read are the calls of `register_model(ModelType.name, 'id on ModelScope', ..., hf_model_id='id')` of
`swift/llm/utils/model.py`, and the names in `ModelType`; later trees win.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path


def models(tree: Path) -> dict[str, str]:
    """Ids by type; those of Hugging Face where they are given."""
    module = ast.parse((tree / "swift" / "llm" / "utils" / "model.py").read_text(encoding="utf-8"))
    names: dict[str, str] = {}
    found: dict[str, str] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef) and node.name == "ModelType":
            for line in node.body:
                if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant):
                    names[ast.unparse(line.targets[0])] = str(line.value.value)
    for node in ast.walk(module):
        if not (
            isinstance(node, ast.Call) and ast.unparse(node.func) == "register_model" and len(node.args) > 1
        ):
            continue
        kind, name = node.args[:2]
        words = {word.arg: word.value for word in node.keywords}
        own = words.get("hf_model_id", name)
        own = own if isinstance(own, ast.Constant) and own.value else name
        if isinstance(kind, ast.Attribute) and isinstance(own, ast.Constant) and own.value:
            found[names.get(kind.attr, kind.attr)] = str(own.value)
    return found


if __name__ == "__main__":
    every: dict[str, str] = {}
    for argument in sys.argv[1:]:
        every |= models(Path(argument))
    for kind in sorted(every):
        print(kind, every[kind])
