"""Write the tables of which models an engine's versions have, from the engine's released sources.

    python scripts/build_model_tables.py ENGINE TREE...

Each tree is a directory `<engine>-<version>` that holds the engine's package as its wheel or its repository has it
(a few files of it are enough: see the readers). The table goes to `src/willfit/engines/<engine>/model_table.py`.
Sources are parsed, never imported.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

ENGINES = Path(__file__).parents[1] / "src" / "willfit" / "engines"

#: Found in a tree: kind of table -> names.
Found = dict[str, set[str]]

_WIDTH = 100

_HEADER = '''"""{what}

Written by `scripts/build_model_tables.py` from {source}.
"""

from __future__ import annotations

from willfit.engines.spans import Spans

#: Versions that were read.
READ = (  # noqa: SIM905
{read}
).split()
'''


def vllm(tree: Path) -> Found:
    """`model_executor/models/registry.py`: classes, those for pooling alone, those run by Transformers' modules."""
    folder = tree / "vllm" / "model_executor" / "models"
    path = next(name for name in (folder / "registry.py", folder / "__init__.py") if name.exists())
    found: Found = {"CLASSES": set(), "POOLING": set(), "THROUGH_TRANSFORMERS": set()}
    generating: set[str] = set()
    for name, entries in _dictionaries(path):
        keys = {key for key, _ in entries}
        if not name.endswith("_MODELS") or any(
            word in name for word in ("PREVIOUS", "OOT", "ROCM", "SPECULATIVE")
        ):
            continue
        found["CLASSES"] |= keys
        if "TRANSFORMERS_SUPPORTED" in name:
            found["THROUGH_TRANSFORMERS"] |= keys
        if re.search("GENERATION|MULTIMODAL|TRANSFORMERS", name):
            generating |= keys
        else:
            found["POOLING"] |= keys
        if name == "_TEXT_GENERATION_MODELS":
            # Helium, youtu and others are registered among the rest, but with Transformers' modules.
            found["THROUGH_TRANSFORMERS"] |= {
                key for key, value in entries if value.startswith("('transformers'")
            }
    found["POOLING"] -= generating
    return found


def sglang(tree: Path) -> Found:
    """`srt/models/*.py`: what each module exports as `EntryClass`."""
    found: set[str] = set()
    for path in sorted((tree / "sglang" / "srt" / "models").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8-sig"))):
            if isinstance(node, ast.Assign | ast.AnnAssign):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if isinstance(target, ast.Name) and target.id == "EntryClass" and node.value is not None:
                    items = node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value]
                    found |= {item.id for item in items if isinstance(item, ast.Name)}
    drafts = {name for name in found if re.search("Eagle|EAGLE|MTP|NextN|DFlash|DSpark|Draft", name)}
    pooling = {
        node.value
        for node in ast.walk(
            _function(tree / "sglang" / "srt" / "configs" / "model_config.py", "is_generation_model")
        )
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {"CLASSES": found - drafts, "POOLING": pooling & found}


def lmdeploy(tree: Path) -> Found:
    """`pytorch/models/module_map.py`: classes of the PyTorch engine."""
    path = tree / "lmdeploy" / "pytorch" / "models" / "module_map.py"
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8-sig"))):
        # The maps for other devices and for custom modules have names of their own.
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "MODULE_MAP.update":
            for argument in node.args:
                if isinstance(argument, ast.Dict):
                    found |= {key.value for key in argument.keys if isinstance(key, ast.Constant)}
    return {"CLASSES": {name for name in found if not re.search("Eagle|MTP|DFlash", name)}}


def tgi(tree: Path) -> Found:
    """`models/__init__.py: get_model`: model types that it compares with."""
    path = tree / "server" / "text_generation_server" / "models" / "__init__.py"
    text = path.read_text(encoding="utf-8")
    types = dict(re.findall(r'^    ([A-Z0-9_]+) = \{\s+"type": "([^"]+)"', text, re.MULTILINE))
    found: set[str] = set()
    for operand in re.findall(r"model_type (?:==|in) (\[[^\]]*\]|\(?\"[^\"]+\"|[A-Z0-9_]+)", text):
        found |= set(re.findall(r'"([^"]+)"', operand))
        found |= {types[word] for word in re.findall(r"\b[A-Z][A-Z0-9_]+\b", operand) if word in types}
    return {"TYPES": found - {"ssm", "phi-msft", "mlp_speculator"}}


def transformers(tree: Path) -> Found:
    """`models/auto/`: types that have a configuration and a class that generates, embeds or classifies."""
    folder = tree / "transformers" / "models" / "auto"
    types: set[str] = set()
    for name in ("configuration_auto.py", "auto_mappings.py"):
        if (folder / name).exists():
            types |= _pairs(folder / name, re.compile("^CONFIG_MAPPING_NAMES$"))
    wanted = "CAUSAL_LM|SEQ_TO_SEQ|SEQ2SEQ|SPEECH_SEQ_2_SEQ|VISION_2_SEQ|IMAGE_TEXT_TO_TEXT|MULTIMODAL_LM|MASKED_LM"
    wanted += "|SEQUENCE_CLASSIFICATION|TEXT_ENCODING|RETRIEVAL|AUDIO_TEXT"
    tasks = _pairs(folder / "modeling_auto.py", re.compile(rf"MODEL_FOR_.*({wanted}).*MAPPING_NAMES$"))
    found = {"TYPES": types & tasks}
    if (folder.parent / "llama").exists():
        found["HANDING_OVER"] = {name for name in found["TYPES"] if _hands_over(folder, name)}
    return found


def _hands_over(folder: Path, model_type: str) -> bool:
    """Whether a type's classes leave attention to whoever runs them."""
    modules = _pairs_of(folder, "SPECIAL_MODEL_TYPE_TO_MODULE_NAME")
    module = modules.get(model_type, model_type.replace("-", "_"))
    path = folder.parent / module / f"modeling_{module}.py"
    return path.exists() and "_supports_attention_backend = True" in path.read_text(encoding="utf-8")


def mlx(tree: Path) -> Found:
    """`mlx_lm/models/*.py`: a module for each type, and the types that `utils.py` takes for others.

    Some modules make their caches themselves.
    """
    folder = tree / "mlx_lm"
    found: set[str] = set()
    making: set[str] = set()
    for path in sorted((folder / "models").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if re.search(r"^class ModelArgs\b", text, re.MULTILINE):
            found.add(path.stem)
            making |= {path.stem} if "def make_cache" in text else set()
    for name, entries in _dictionaries(folder / "utils.py"):
        if name == "MODEL_REMAPPING":
            pairs = {key: ast.literal_eval(value) for key, value in entries}
            making |= {key for key, value in pairs.items() if value in making}
            found |= {key for key, value in pairs.items() if value in found}
    return {"TYPES": found, "MAKING_CACHES": making}


def exllamav2(tree: Path) -> Found:
    """`architecture.py`: the names that a config's class is compared with."""
    folder = tree / "exllamav2"
    path = next(name for name in (folder / "architecture.py", folder / "config.py") if name.exists())
    text = path.read_text(encoding="utf-8")
    found = set(re.findall(r"arch_string == \"(\w+)\"", text))
    found |= set(re.findall(r"\"(\w+)\" in read_config\[.architectures.\]", text))
    for operand in re.findall(r"arch_string in (\[[^\]]*\])", text):
        found |= set(re.findall(r"\"(\w+)\"", operand))
    # What no name matches is taken for a Llama.
    return {"CLASSES": found | {"LlamaForCausalLM"}}


def exllamav3(tree: Path) -> Found:
    """`architecture/*.py`: names of classes, and those whose layers with a window keep rings."""
    folder = tree / "exllamav3"
    found: Found = {"CLASSES": set(), "RINGS": set()}
    paths = [*(folder / "architecture").glob("*.py"), *(folder / "models").glob("*.py")]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        names = set(re.findall(r"^    arch_string = \"(\w+)\"", text, re.MULTILINE))
        names = {name for name in names if not re.search("DFlash|Draft|Assistant", name)}
        found["CLASSES"] |= names
        if "SlidingAttention(" in text:
            found["RINGS"] |= names
    return found


READERS: dict[str, tuple[Callable[[Path], Found], str, str]] = {
    "vllm": (vllm, "Model classes that vLLM has.", "`vllm/model_executor/models/registry.py`"),
    "sglang": (sglang, "Model classes that SGLang has.", "`sglang/srt/models/*.py`"),
    "lmdeploy": (
        lmdeploy,
        "Model classes that LMDeploy's PyTorch engine has.",
        "`lmdeploy/pytorch/models/module_map.py`",
    ),
    "tgi": (
        tgi,
        "Model types that Text Generation Inference has.",
        "`server/text_generation_server/models/__init__.py`",
    ),
    "mlx": (mlx, "Model types that mlx-lm has.", "`mlx_lm/models/*.py` and `mlx_lm/utils.py`"),
    "exllamav2": (exllamav2, "Model classes that ExLlamaV2 has.", "`exllamav2/architecture.py`"),
    "exllamav3": (exllamav3, "Model classes that ExLlamaV3 has.", "`exllamav3/architecture/*.py`"),
    "transformers": (
        transformers,
        "Model types that transformers has.",
        "`transformers/models/auto/configuration_auto.py` and `modeling_auto.py`",
    ),
}


def _dictionaries(path: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Dictionaries of a module with their string keys and their values as source."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.Dict):
            pairs = zip(value.keys, value.values, strict=True)
            yield (
                target.id,
                [(key.value, ast.unparse(one)) for key, one in pairs if isinstance(key, ast.Constant)],
            )


def _pairs(path: Path, name: re.Pattern[str]) -> set[str]:
    """First elements of the pairs that ordered dictionaries of such a name are made of."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and name.search(target.id):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Tuple) and inner.elts and isinstance(inner.elts[0], ast.Constant):
                    found.add(inner.elts[0].value)
    return found


@cache
def _pairs_of(folder: Path, name: str) -> dict[str, str]:
    """The pairs of an ordered dictionary of strings in `models/auto/`."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            if isinstance(target, ast.Name) and target.id == name:
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Tuple) and len(inner.elts) == 2:
                        one, two = inner.elts
                        if isinstance(one, ast.Constant) and isinstance(two, ast.Constant):
                            found[one.value] = two.value
    return found


def _function(path: Path, name: str) -> ast.AST:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    raise SystemExit(f"{path}: no function {name}")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", text))


def _rows(names: list[str], indent: str) -> str:
    """A string literal of names, broken into lines."""
    lines, line = [], ""
    for name in names:
        if line and len(indent) + len(line) + len(name) + 4 > _WIDTH:
            lines.append(line)
            line = ""
        line += f"{name} "
    lines.append(line.rstrip())
    return "\n".join(f'{indent}"{one}"' for one in lines)


def _literal(names: list[str]) -> str:
    """Names as the value of an entry, in parentheses if they take several lines."""
    rows = _rows(names, " " * 12)
    return f"(\n{rows}\n        )" if "\n" in rows else rows.strip()


def table(name: str, found: list[tuple[str, set[str]]]) -> str:
    """One table: names by the first and the last version that have them."""
    newest = found[-1][0]
    spans: dict[tuple[str, str], list[str]] = {}
    for word in sorted(set().union(*(names for _, names in found))):
        versions = [version for version, names in found if word in names]
        last = "" if versions[-1] == newest else versions[-1]
        spans.setdefault((versions[0], last), []).append(word)
    order = sorted(spans, key=lambda span: (_version(span[0]), _version(span[1] or "1000")))
    body = "".join(f'        ("{one}", "{two}"): {_literal(spans[one, two])},\n' for one, two in order)
    return f"\n{name} = Spans(\n    READ,\n    {{\n{body}    }},\n)\n"


def beside(trees: list[tuple[str, Path]]) -> str:
    """Which versions of transformers an engine's versions ask for: since when, at least, and below."""
    found: list[tuple[str, str, str]] = []
    for version, tree in trees:
        metadata = next(tree.glob("*.dist-info/METADATA"), None)
        if metadata is None:
            continue
        text = metadata.read_text(encoding="utf-8", errors="replace")
        wanted = re.search(r"^Requires-Dist: transformers([^;\n]*)", text, re.MULTILINE)
        if wanted is None:
            continue
        exact = re.search(r"==\s*([\d.]+\d)(?!\.?\*)", wanted[1].replace("!=", "!"))
        least = re.search(r">=\s*([\d.]+)", wanted[1])
        below = re.search(r"<\s*([\d.]+)", wanted[1])
        pair = (exact[1], exact[1]) if exact else (least[1] if least else "", below[1] if below else "")
        if not found or found[-1][1:] != pair:
            found.append((version, *pair))
    rows = "".join(f"    {row!r},\n".replace("'", '"') for row in found)
    what = "Since when it asks for transformers of at least and below what; twice the same is that."
    return f"\n#: {what}\nBESIDE = (\n{rows})\n"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("engine", choices=READERS)
    parser.add_argument("tree", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    reader, what, source = READERS[options.engine]
    by_version = {path.name.rpartition("-")[2].removeprefix("v"): path for path in options.tree}
    trees = sorted(by_version.items(), key=lambda pair: _version(pair[0]))
    found = [(version, reader(path)) for version, path in trees]
    read = _rows([version for version, _ in found], "    ")
    text = _HEADER.format(what=what, source=source, read=read)
    for name, names in found[-1][1].items():
        if name in found[0][1]:
            text += table(name, [(version, tables[name]) for version, tables in found])
        else:
            rows = _rows(sorted(names), "    ")
            text += f"\n#: Of the newest that was read.\n{name} = (  # noqa: SIM905\n{rows}\n).split()\n"
    if options.engine in ("vllm", "sglang"):
        text += beside(trees)
    path = ENGINES / options.engine / "model_table.py"
    path.write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(path)], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
