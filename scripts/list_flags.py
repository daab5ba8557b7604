"""Write the tables of an engine's flags and variables, from the source trees of its released versions.

    python scripts/list_flags.py vllm TREE... > table

Each TREE is a folder `<engine>-<version>` with the unpacked wheel of that version. Nothing of it is run: calls of
`add_argument` are read, and the annotations of the config classes that newer parsers are made from. Written is, for
each flag, what its parser takes, in which of those versions it is there, and whether it can change memory: that
column is a person's judgement, so it is kept from the table that is there, and a flag that is new says `memory` until
somebody has looked at it.

What a flag changes in memory may stand in words behind ` # `; it is kept, too.

Columns: spellings, what follows (`switch`, `toggle` for `--x` and `--no-x`, `boolean` for a switch that also takes
`true` or `false`, `value`, `values`, `any`, `optional`), the kind of value with `?` if `None` may stand for it,
`memory` or `quiet`, and the versions if it is not in all.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DATA = Path(__file__).resolve().parents[1] / "src" / "willfit" / "launch" / "data"

#: Files of each engine that add flags, and those with the classes, lists and aliases that they are made from.
PARSERS = {
    "vllm": (
        "vllm/engine/arg_utils.py",
        "vllm/entrypoints/openai/cli_args.py",
        "vllm/entrypoints/common/cli_args.py",
        "vllm/entrypoints/openai/api_server.py",
        "vllm/entrypoints/cli/serve.py",
        "vllm/scripts.py",
    ),
    "vllm_bench": ("vllm/benchmarks/latency.py", "vllm/benchmarks/throughput.py"),
    "vllm_batch": ("vllm/entrypoints/openai/run_batch.py", "vllm/entrypoints/launchers/run_batch.py"),
    "sglang": ("sglang/srt/server_args.py", "sglang/srt/arg_groups/fields/*.py"),
    "lmdeploy": ("lmdeploy/cli/utils.py", "lmdeploy/cli/serve.py"),
    "lightllm": ("lightllm/server/api_cli.py",),
    "koboldcpp": ("koboldcpp.py",),
    "llama_cpp_python": (),
    "mlx_server": ("mlx_lm/server.py",),
    "mlx_generate": ("mlx_lm/generate.py",),
    "mlx_chat": ("mlx_lm/chat.py",),
    "mlx_benchmark": ("mlx_lm/benchmark.py",),
    "tabby": ("common/config_models.py",),
    "exllamav2": ("exllamav2/model_init.py", "test_inference.py", "examples/chat.py"),
    "exllamav3": ("exllamav3/model_init.py", "examples/chat.py"),
    "ktransformers": ("ktransformers/server/args.py",),
    "kt": ("sglang/srt/server_args.py",),
    "fastllm": ("ftllm/util.py", "ftllm/server.py", "ftllm/cli.py", "ftllm/webui.py"),
    "mlc": ("mlc_llm/cli/serve.py", "mlc_llm/cli/chat.py"),
    "mlx_vlm": (
        "mlx_vlm/server.py",
        "mlx_vlm/server/cli.py",
        "mlx_vlm/generate.py",
        "mlx_vlm/generate/cli.py",
    ),
}
TYPES = {
    "llama": ("llama_cpp/server/settings.py", "llama_cpp/server/app.py"),
    "vllm": ("vllm/config.py", "vllm/config/*.py", "vllm/envs.py"),
    "sglang": ("sglang/srt/arg_groups/choices.py",),
}
#: Where variables are declared, and how they begin.
VARIABLES = {"vllm": ("vllm/envs.py", r"VLLM_[A-Z0-9_]+")}
#: Classes whose fields are flags by themselves.
CLASSES = {
    "vllm": ("BaseFrontendArgs", "FrontendArgs"),
    "vllm_batch": ("BatchFrontendArgs",),
    "llama_cpp_python": ("Settings", "ModelSettings", "ServerSettings"),
    "tabby": (
        "ConfigOverrideConfig",
        "NetworkConfig",
        "LoggingConfig",
        "ModelConfig",
        "DraftModelConfig",
        "SamplingConfig",
        "LoraConfig",
        "EmbeddingsConfig",
        "MemoryConfig",
        "DeveloperConfig",
    ),
}
#: Integers that vLLM reads with a unit.
HUMAN = {
    "max_model_len",
    "max_num_batched_tokens",
    "max_num_scheduled_tokens",
    "kv_cache_memory_bytes",
    "kv_cache_memory",
    "safetensors_prefetch_block_size",
    "max_num_queued_tokens",
}
NEGATED = re.compile(r"BooleanOptionalAction")


class Flag(NamedTuple):
    """A flag of one version: its spellings, what follows, and the kind of value."""

    names: tuple[str, ...]
    takes: str
    kind: str


class Source:
    """What the source tree of one version says."""

    def __init__(self, engine: str, tree: Path) -> None:
        family = engine.split("_")[0]
        self.classes: dict[str, dict[str, ast.expr]] = {}
        self.constants: dict[str, ast.expr] = {}
        self.parsers: list[ast.Module] = []
        for pattern in (*TYPES.get(family, ()), *PARSERS[engine]):
            for path in sorted(tree.glob(pattern)):
                module = ast.parse(path.read_text(encoding="utf-8"))
                if pattern in PARSERS[engine]:
                    self.parsers.append(module)
                for node in ast.walk(module):
                    if isinstance(node, ast.ClassDef):
                        fields = {
                            line.target.id: line.annotation
                            for line in node.body
                            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
                        }
                        self.classes.setdefault(node.name, {}).update(fields)
                    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                        self.constants.setdefault(node.targets[0].id, node.value)
                    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
                        self.constants.setdefault(node.target.id, node.value)

    # Values of the source

    def words(self, node: ast.expr | None) -> list[str] | None:
        """The words of a list of choices; None if it is made at run time."""
        if isinstance(node, ast.Name) and node.id in self.constants:
            return self.words(self.constants[node.id])
        if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords:
            return self.words(node.args[0])
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = self.words(node.left), self.words(node.right)
            return None if left is None or right is None else left + right
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal"):
            return self.words(node.slice if isinstance(node.slice, ast.Tuple) else ast.Tuple([node.slice]))
        if not isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            return None
        found: list[str] = []
        for element in node.elts:
            if isinstance(element, ast.Constant):
                found.append(str(element.value))
            elif isinstance(element, ast.Starred):
                inner = self.words(element.value)
                if inner is None:
                    return None
                found += inner
            else:
                inner = self.words(element)
                if inner is None:
                    return None
                found += inner
        return found

    def members(self, node: ast.expr) -> Iterator[ast.expr]:
        """The types of a union, without wrappers and with aliases written out."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from self.members(ast.parse(node.value, mode="eval").body)
        elif isinstance(node, ast.BinOp):
            yield from self.members(node.left)
            yield from self.members(node.right)
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).split(".")[-1] in (
            "Optional", "Union", "SkipValidation", "InitVar", "Annotated", "A", "ClassVar",
        ):  # fmt: skip
            name = ast.unparse(node.value).split(".")[-1]
            inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            for element in inner[:1] if name in ("Annotated", "A") else inner:
                yield from self.members(element)
            if name == "Optional":
                yield ast.Constant(None)
        elif (
            isinstance(node, ast.Name)
            and node.id in self.constants
            and isinstance(self.constants[node.id], (ast.Subscript, ast.BinOp))
        ):
            yield from self.members(self.constants[node.id])
        else:
            yield node

    # What argparse is told

    def of_annotation(self, name: str, annotation: ast.expr) -> tuple[str, str]:
        """What follows a flag that is made from a field (`arg_utils.py: _compute_kwargs`)."""
        members = list(self.members(annotation))
        names = {ast.unparse(member).split("[")[0].split(".")[-1] for member in members}
        none = "?" if "None" in names else ""
        if any(one in self.classes and (one.endswith("Config") or one == "PoolerConfig") for one in names):
            return "value", "json" + none
        if names == {"bool", "str", "None"}:
            return "optional", "str"
        if "bool" in names:
            return "toggle", "-"
        if "Literal" in names:
            literal = next(
                member for member in members if ast.unparse(member).split("[")[0].endswith("Literal")
            )
            words = self.words(literal)
            return "value", ("str" if "str" in names or not words else "|".join(words)) + none
        for collection in ("tuple", "list", "set", "List", "Tuple"):
            if collection in names:
                inner = next(m for m in members if ast.unparse(m).split("[")[0].split(".")[-1] == collection)
                element = ast.unparse(inner.slice) if isinstance(inner, ast.Subscript) else "str"
                return "values", {"int": "int", "float": "float"}.get(element.split(",")[0], "str")
        if "int" in names:
            return "value", ("tokens" if name in HUMAN else "int") + none
        if "float" in names:
            return "value", "float" + none
        if names & {"dict", "Dict"}:
            return "value", ("str" if "str" in names or len(names - {"None"}) > 1 else "json") + none
        return "value", "str" + none

    def of_call(self, keywords: dict[str, ast.expr], base: tuple[str, str] | None) -> tuple[str, str]:
        """What follows a flag, from the arguments of `add_argument`; they win over those of a field."""
        takes, kind = base or ("value", "str")
        action = ast.unparse(keywords["action"]).strip("'\"") if "action" in keywords else ""
        nargs = ast.unparse(keywords["nargs"]).strip("'\"") if "nargs" in keywords else ""
        if NEGATED.search(action):
            return "toggle", "-"
        if action.endswith("StoreBoolean"):
            return "boolean", "-"
        if action in ("store_true", "store_false", "store_const", "help", "version", "count"):
            return "switch", "-"
        if action.endswith(("DeprecatedStoreTrueAction", "DeprecatedAction")):
            return "switch", "-"
        if action.endswith("DeprecatedStoreConstAction") and nargs != "None":
            return "switch", "-"
        if "type" in keywords or "type_parser" in keywords:
            kind = _kind(ast.unparse(keywords.get("type_parser", keywords.get("type"))))  # type: ignore[arg-type]
        if "choices" in keywords and not kind.startswith(("int", "float")):
            words = self.words(keywords["choices"])
            none = "?" if words and "None" in words else ""
            words = [word for word in words or () if word != "None"]
            kind = "|".join(words) + none if words and not any(" " in word for word in words) else "str"
        elif "choices" in keywords:
            words = self.words(keywords["choices"])
            kind = "|".join(words) if words else kind
        if nargs and nargs != "None":
            takes = {"+": "values", "*": "any", "?": "optional", "0": "switch"}.get(nargs, "values")
        return ("switch", "-") if takes == "switch" else (takes, kind)

    # All flags

    def flags(self, engine: str) -> Iterator[Flag]:
        """All flags of the version."""
        for module in _of_server(self.parsers) if engine == "lmdeploy" else self.parsers:
            kwargs_of = {
                node.targets[0].id: ast.unparse(node.value.args[0])
                for node in ast.walk(module)
                if isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and isinstance(node.value, ast.Call)
                and ast.unparse(node.value.func).endswith("get_kwargs")
                and node.value.args
            }
            for node in _calls(module):
                names = tuple(
                    argument.value
                    for argument in node.args
                    if isinstance(argument, ast.Constant) and str(argument.value).startswith("-")
                )
                if not names:
                    continue
                base = None
                for given in (keyword.value for keyword in node.keywords if keyword.arg is None):
                    # `**kwargs["field"]`, or `**{**kwargs["field"], "default": None}`.
                    inner = next(iter(given.values), given) if isinstance(given, ast.Dict) else given
                    if isinstance(inner, ast.Subscript):
                        owner = kwargs_of.get(ast.unparse(inner.value), "")
                        field = ast.unparse(inner.slice).strip("'\"")
                        annotation = self.classes.get(owner, {}).get(field)
                        if annotation is not None:
                            base = self.of_annotation(field, annotation)
                keywords = {one.arg: one.value for one in node.keywords if one.arg}
                yield Flag(names, *self.of_call(keywords, base))
        for name in CLASSES.get(engine, ()):
            for field, annotation in self.classes.get(name, {}).items():
                takes, kind = self.of_annotation(field, annotation)
                if engine == "llama_cpp_python":
                    # `llama_cpp/server/cli.py: add_args_from_model` keeps underscores and gives every flag a value.
                    takes = "any" if takes == "values" else "value"
                    yield Flag((f"--{field}",), takes, kind.removesuffix("?").replace("-", "str"))
                    continue
                if field in ("allowed_origins", "allowed_methods", "allowed_headers"):
                    takes, kind = "value", "json"
                elif field == "middleware":
                    takes = "value"
                elif field in ("default_chat_template_kwargs", "reasoning_effort_map"):
                    kind = "json"
                elif engine == "tabby" and takes != "values":
                    # Its parser takes words, whatever they must be.
                    takes, kind = "value", "str"
                short = {"input_file": ("-i",), "output_file": ("-o",)}.get(field, ())
                yield Flag(("--" + field.replace("_", "-"), *short), takes, kind)
        if engine == "llama_cpp_python":
            yield Flag(("--config_file",), "value", "str")  # `llama_cpp/server/__main__.py`
        if engine == "sglang":
            yield from self.annotated()

    def annotated(self) -> Iterator[Flag]:
        """Fields of SGLang's classes that are annotated with `A[type, Arg(...)]` (`arg_groups/arg_utils.py`)."""
        for fields in list(self.classes.values()):
            for field, annotation in fields.items():
                if not (isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "A"):
                    continue
                inner, *metadata = (
                    annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [None]
                )
                call = next((one for one in metadata if isinstance(one, ast.Call)), None)
                if call is not None and ast.unparse(call.func) != "Arg":
                    continue
                if inner is None or (call is None and not metadata):
                    continue
                keywords = {one.arg: one.value for one in call.keywords if one.arg} if call else {}
                if "no_cli" in keywords:
                    continue
                first = keywords.get("cli_name")
                names = [ast.literal_eval(first) if first is not None else "--" + field.replace("_", "-")]
                names += self.words(keywords.get("aliases")) or []
                takes, kind = self.of_annotation(field, inner)
                if "action_kwargs" in keywords and isinstance(keywords["action_kwargs"], ast.Dict):
                    extra = keywords["action_kwargs"]
                    keywords |= {
                        ast.literal_eval(key): value
                        for key, value in zip(extra.keys, extra.values, strict=True)
                    }
                if takes == "toggle":
                    takes, kind = "switch", "-"
                if takes == "values" and "type_parser" in keywords:
                    takes = "value"
                yield Flag(tuple(names), *self.of_call(keywords, (takes, kind.removesuffix("?"))))


def _calls(module: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(module):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "add_argument"
        ):
            yield node


def _of_server(modules: list[ast.Module]) -> list[ast.Module]:
    """The functions with the flags of LMDeploy's server; its other commands have flags of their own."""
    functions = {
        node.name: node
        for module in modules
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef)
    }
    server = functions["add_parser_api_server"]
    used = {
        node.func.attr
        for node in ast.walk(server)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "ArgumentHelper"
    }
    return [ast.Module([server, *(functions[name] for name in sorted(used))], [])]


def rust_flags(tree: Path) -> Iterator[Flag]:
    """The flags of TGI's launcher: fields of a struct for clap, each of which a variable can set as well."""
    text = re.sub(r"(?<!:)//.*", "", (tree / "launcher/src/main.rs").read_text(encoding="utf-8"))
    text = re.sub(r"#\[deprecated\(.*?\)\]", "", text, flags=re.DOTALL)
    enums = {}
    for name, body in re.findall(r"enum (\w+) \{(.*?)\n\}", text, re.DOTALL):
        words = re.findall(r'(?:#\[clap\(name = "([^"]+)"\)\]\s*)?(\w+),', body)
        enums[name] = "|".join(
            given or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", word).lower() for given, word in words
        )
    fields = re.search(r"struct Args \{(.*?)\n\}", text, re.DOTALL)
    for attributes, name, kind in re.findall(
        r"#\[clap\((.*?)\)\]\s*(\w+): ([^\n]+),\n", fields[1] if fields else ""
    ):
        names = ["--" + name.replace("_", "-")]
        if re.search(r"\bshort\b", attributes):
            names.append("-" + name[0])
        inner = re.sub(r"^(?:Option|Vec)<|>+$", "", kind)
        if kind == "bool":
            yield Flag(tuple(names), "switch", "-")
        elif kind == "Option<bool>":
            yield Flag(tuple(names), "value", "true|false")
        elif re.fullmatch(r"[ui](size|\d+)", inner) and "Vec" not in kind:
            yield Flag(tuple(names), "value", "int")
        else:
            yield Flag(tuple(names), "value", {"f32": "float"}.get(inner, enums.get(inner, "str")))


def _kind(text: str) -> str:
    if text.startswith("lambda"):
        return "str"
    none = "?" if "optional_type" in text or text.startswith(("optional_", "nullable")) else ""
    if "human_readable_int" in text:
        return "tokens" + none
    if "from_cli" in text or "parse_dict" in text:
        return "json" + none
    for word in ("json", "float", "int"):
        if word in text:
            return word + none
    return "str" + none


def merged(one: Flag, other: Flag) -> Flag:
    """A flag as of two versions, `other` the newer one."""
    # A letter that the newer version gives to something else is left out.
    names = (*other.names, *(name for name in one.names if name not in other.names and name[1:2] == "-"))
    takes = other.takes
    if {one.takes, other.takes} == {"boolean", "toggle"}:
        takes = "boolean"
    if "switch" in (one.takes, other.takes) and {one.takes, other.takes} & {"value", "optional"}:
        # What took a value once is still there to say that it does nothing.
        takes = "optional"
    if {one.takes, other.takes} & {"values", "any"} and {one.takes, other.takes} & {"value", "optional"}:
        takes = "any" if "any" in (one.takes, other.takes) else "values"
    kinds = [one.kind.removesuffix("?"), other.kind.removesuffix("?")]
    none = "?" if one.kind.endswith("?") or other.kind.endswith("?") else ""
    if takes in ("switch", "toggle", "boolean"):
        return Flag(names, takes, "-")
    plain = {"str", "int", "float", "json", "tokens", "-"}
    if kinds[0] == kinds[1]:
        kind = kinds[1]
    elif not set(kinds) & plain:
        kind = "|".join(dict.fromkeys([*kinds[1].split("|"), *kinds[0].split("|")]))
    elif "int" in kinds and all(one == "int" or one.replace("|", "").isdigit() for one in kinds):
        kind = "int"  # numbers that one of the parsers leaves to the engine
    elif "tokens" in kinds:
        kind = "tokens"
    elif set(kinds) == {"int", "float"}:
        kind = "float"
    elif "-" in kinds:
        kind = next(kind for kind in kinds if kind != "-")
    else:
        kind = "str"
    return Flag(names, takes, kind + none)


def _long(flag: Flag) -> set[str]:
    return {name for name in flag.names if name.startswith("--")}


def _numbers(tree: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", tree.name.partition("-")[2]))


def _between(present: list[str], versions: list[str]) -> str:
    since = "" if present[0] == versions[0] else present[0]
    until = "" if present[-1] == versions[-1] else present[-1]
    return f" {since}-{until}" if since or until else ""


def _judged(path: Path) -> dict[str, tuple[str, str]]:
    """The effect that the table in place gives each flag, and the words behind it."""
    found: dict[str, tuple[str, str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        row, mark, about = line.partition(" # ")
        if row[:1] not in ("", "#"):
            effect = next((word for word in row.split()[1:] if word in ("memory", "quiet")), "memory")
            found |= dict.fromkeys(row.split()[0].split(","), (effect, mark + about))
    return found


def flag_table(engine: str, trees: list[Path]) -> str:
    """The table of an engine's flags."""
    versions = [tree.name.partition("-")[2] for tree in trees]
    found: dict[str, tuple[Flag, list[str]]] = {}
    for tree, version in zip(trees, versions, strict=True):
        seen: dict[str, Flag] = {}
        for flag in rust_flags(tree) if engine == "tgi" else Source(engine, tree).flags(engine):
            key = next((name for name in flag.names if name.startswith("--")), flag.names[0])
            seen[key] = merged(seen[key], flag) if key in seen else flag
        for key, flag in seen.items():
            owner = next((own for own, (was, _) in found.items() if _long(was) & _long(flag)), key)
            was, present = found.get(owner, (flag, []))
            found[owner] = (merged(was, flag), [*present, version])
    judged = _judged(DATA / f"{engine}_flags.txt")
    lines = [f"# versions {' '.join(versions)}"]
    rows = []
    for flag, present in found.values():
        names = sorted(flag.names, key=lambda name: (not name.startswith("--"), flag.names.index(name)))
        effect, about = next((judged[name] for name in names if name in judged), ("memory", ""))
        row = f"{','.join(names)} {flag.takes} {flag.kind or 'str'} {effect}"
        rows.append(row + _between(sorted(set(present), key=versions.index), versions) + about)
    return "\n".join([*lines, *sorted(rows)])


def variable_table(engine: str, trees: list[Path]) -> str:
    """The table of an engine's variables."""
    pattern, name = VARIABLES[engine]
    versions = [tree.name.partition("-")[2] for tree in trees]
    found: dict[str, list[str]] = {}
    for tree, version in zip(trees, versions, strict=True):
        text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(tree.glob(pattern)))
        for word in sorted(set(re.findall(rf"\b{name}\b", text))):
            found.setdefault(word, []).append(version)
    judged = _judged(DATA / f"{engine}_variables.txt")
    rows = [
        f"{word} {judged.get(word, ('memory', ''))[0]}{_between(present, versions)}"
        for word, present in found.items()
    ]
    return "\n".join([f"# versions {' '.join(versions)}", *sorted(rows)])


if __name__ == "__main__":
    what, *paths = sys.argv[1:]
    engine_name, _, kind_of_table = what.partition(":")
    ordered = sorted((Path(path) for path in paths), key=_numbers)
    print(variable_table(engine_name, ordered) if kind_of_table else flag_table(engine_name, ordered))
