"""Write the tables of training programs' flags and keys, from the source trees of their released versions.

    python scripts/list_training_flags.py torchtitan TREE... > table

As `list_flags.py`, whose tables these are, but for programs whose options are fields of classes: those of a parser
made from dataclasses have the field's name, those of nested ones names with dots, and a function that becomes a command
(LitGPT) has its parameters' names. Each TREE is a folder `<program>-<version>`; nothing of it is run.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from list_flags import DATA, Flag, Source, _between, _calls, _judged, merged

#: Files of each program that are read.
FILES = {
    "torchtitan": (
        "torchtitan/config_manager.py", "torchtitan/config/*.py", "torchtitan/trainer.py",
        "torchtitan/tools/profiler.py", "torchtitan/components/*.py", "torchtitan/components/*/*.py",
        "torchtitan/distributed/activation_checkpoint.py",
    ),
    "megatron": (
        "megatron/training/arguments.py", "megatron/arguments.py", "megatron/training/config/*.py",
        "megatron/core/transformer/transformer_config.py", "megatron/core/model_parallel_config.py",
    ),
    "litgpt": (
        "litgpt/args.py", "litgpt/finetune/*.py", "litgpt/pretrain.py",
    ),
    "accelerate": ("accelerate/commands/launch.py",),
    "deepspeed": ("deepspeed/launcher/runner.py", "deepspeed-*/deepspeed/launcher/runner.py"),
    "trl": (
        "trl/trainer/*_config.py", "trl/trainer/utils.py", "trl/experimental/*/*_config.py", "trl/scripts/utils.py",
        "trl/commands/cli_utils.py", "trl/utils.py",
    ),
    "trainer_arguments": ("transformers/training_args.py", "transformers/training_args_seq2seq.py"),
    "llamafactory": ("src/llamafactory/hparams/*.py", "llamafactory/hparams/*.py", "llmtuner/hparams/*.py"),
    "axolotl": (
        "axolotl/utils/schemas/*.py", "src/axolotl/utils/config/models/input/**/*.py", "src/axolotl/utils/schemas/*.py",
                "axolotl/integrations/*/args.py", "src/axolotl/integrations/*/args.py"),
    "swift": (
        "swift/llm/argument/*.py", "swift/llm/argument/base_args/*.py", "swift/llm/utils/argument.py",
        "swift/rlhf_trainers/*.py", "swift/trainers/rlhf_arguments.py", "swift/trainers/arguments.py",
        "swift/trainers/*/*.py", "swift/arguments/*.py",
        "swift/arguments/base_args/*.py",
    ),
    "swift_megatron": (
        "swift/megatron/argument/*.py", "swift/megatron/arguments/*.py", "swift/megatron/argument/*/*.py",
    ),
}  # fmt: skip

#: Classes whose fields are flags; those of nested ones get the outer field's name in front.
ROOTS = {
    "torchtitan": ("JobConfig", "Trainer.Config"),
    "megatron": (),
    "litgpt": (),
    "accelerate": (),
    "deepspeed": (),
    "trl": (),
    "trainer_arguments": ("TrainingArguments", "Seq2SeqTrainingArguments"),
    "llamafactory": (
        "ModelArguments", "DataArguments", "FinetuningArguments", "GeneratingArguments", "TrainingArguments",
    ),
    "axolotl": ("AxolotlInputConfig", "AxolotlConfigWCapabilities"),
    "swift": ("SftArguments", "TrainArguments", "RLHFArguments", "PtArguments", "PretrainArguments", "DPOArguments"),
    "swift_megatron": ("MegatronTrainArguments", "MegatronSftArguments", "MegatronRLHFArguments", "MegatronArguments"),
}  # fmt: skip

#: Classes of TRL whose fields are flags, by the names of its scripts; those of all scripts have no name.
SCRIPTS = {
    "": ("ScriptArguments", "DatasetMixtureConfig", "ModelConfig"),
    "sft": ("SFTConfig", "SFTScriptArguments"), "dpo": ("DPOConfig", "DPOScriptArguments"), "kto": ("KTOConfig",),
    "reward": ("RewardConfig", "RewardScriptArguments"), "grpo": ("GRPOConfig", "GRPOScriptArguments"),
    "rloo": ("RLOOConfig", "RLOOScriptArguments"), "ppo": ("PPOConfig", "PPOv2Config"), "orpo": ("ORPOConfig",),
    "cpo": ("CPOConfig",), "bco": ("BCOConfig",), "gkd": ("GKDConfig",), "online_dpo": ("OnlineDPOConfig",),
    "nash_md": ("NashMDConfig",), "xpo": ("XPOConfig",), "prm": ("PRMConfig",),
    "distillation": ("DistillationConfig",),
}  # fmt: skip

#: Integrations of axolotl are classes of their own, whose keys a config may have.
PLUGINS = {"axolotl": "axolotl/integrations"}

#: Classes that later versions of Megatron make groups of flags from (`argument_utils.py: ArgumentGroupFactory`).
GROUPS = (
    "TransformerConfig", "TrainingConfig", "DistributedInitConfig", "LoggerConfig", "ProfilingConfig",
    "CheckpointConfig",
    "SchedulerConfig", "RNGConfig", "TokenizerConfig", "ValidationConfig", "RerunStateMachineConfig",
    "StragglerDetectionConfig", "ModelParallelConfig", "MLATransformerConfig",
)  # fmt: skip


def _plain(takes: str, kind: str, annotation: ast.expr) -> tuple[str, str]:
    """Numbers that may be words, too (`devices: int | str`), are words."""
    text = ast.unparse(annotation)
    mixed = "str" in text and kind.removesuffix("?") in ("int", "float") and takes == "value"
    return (takes, "str" + "?" * kind.endswith("?")) if mixed else (takes, kind)


#: Fields of `TrainingArguments` that the parser is told more of (`metadata`): `--fsdp` stands alone, or with words.
TAKES = {("trainer_arguments", "--fsdp"): "any"}

#: Programs that add flags one by one.
PARSED = ("torchtitan", "megatron", "swift_megatron", "accelerate", "deepspeed")

#: Programs whose booleans take a word (jsonargparse; transformers' `HfArgumentParser`).
BOOLEANS = ("trl", "litgpt", "llamafactory", "trainer_arguments", "swift", "swift_megatron")


class Classes(Source):
    """The classes of one version, by their names with those of the classes around them."""

    def __init__(self, program: str, tree: Path) -> None:
        self.program = program
        self.classes = {}
        self.constants = {}
        self.parsers = []
        self.bases: dict[str, list[str]] = {}
        self.defaults: dict[tuple[str, str], ast.expr | None] = {}
        self.functions: list[ast.FunctionDef] = []
        self.plugins: list[str] = []
        self.scripts: dict[str, set[str]] = {}
        for pattern in FILES[program]:
            for path in sorted(tree.glob(pattern)):
                module = ast.parse(path.read_text(encoding="utf-8"))
                self.parsers.append(module)
                before = set(self.classes)
                self._collect(module.body, "")
                if PLUGINS.get(program, "/-/") in str(path):
                    self.plugins += [name for name in self.classes if name not in before]
                if path.match("*/finetune/*.py") or path.name == "pretrain.py":
                    self.functions += [
                        node
                        for node in module.body
                        if isinstance(node, ast.FunctionDef) and node.name == "setup"
                    ]

    def _collect(self, body: list[ast.stmt], outer: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                name = f"{outer}{node.name}"
                fields = self.classes.setdefault(name, {})
                self.bases.setdefault(name, [ast.unparse(base) for base in node.bases])
                for line in node.body:
                    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                        fields[line.target.id] = line.annotation
                        self.defaults[name, line.target.id] = line.value
                self._collect(node.body, f"{name}.")
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.constants.setdefault(node.targets[0].id, node.value)

    def fields(self, name: str, seen: tuple[str, ...] = ()) -> Iterator[tuple[str, str, ast.expr]]:
        """Fields of a class and of those that it is made from: the class, the name, the annotation."""
        if name in seen:
            return
        for base in self.bases.get(name, ()):
            yield from self.fields(base, (*seen, name))
        for field, annotation in self.classes.get(name, {}).items():
            yield name, field, annotation

    def nested(self, name: str, before: str = "--") -> Iterator[Flag]:
        """Flags of a class; fields that are classes of these files are gone into."""
        for owner, field, annotation in self.fields(name):
            inside = [ast.unparse(one) for one in self.members(annotation)]
            inner = next((one for one in inside if self.classes.get(one)), None)
            if field.startswith("_") or "ClassVar" in ast.unparse(annotation):
                continue
            if inner is not None and before.count(".") < 4 and self.program in ("torchtitan", "litgpt"):
                yield from self.nested(inner, f"{before}{field}.")
            else:
                names = (field, *self.aliases(owner, field))
                yield Flag(
                    tuple(before + one for one in names),
                    *_plain(*self.of_annotation(field, annotation), annotation),
                )

    def aliases(self, owner: str, field: str) -> list[str]:
        """Other names that a field of a pydantic class may have in a file."""
        default = self.defaults.get((owner, field))
        words = {one.arg: one.value for one in default.keywords} if isinstance(default, ast.Call) else {}
        found = [words[key] for key in ("alias", "validation_alias") if key in words]
        constants = [node for one in found for node in ast.walk(one) if isinstance(node, ast.Constant)]
        return [str(node.value) for node in constants if node.value != field]

    def all(self) -> Iterator[Flag]:
        """All flags of the version; some parsers let `true` or `false` follow those of booleans."""
        for flag in self.fields_and_calls():
            flag = flag._replace(takes=TAKES.get((self.program, flag.names[0]), flag.takes))
            yield (
                flag._replace(takes="boolean")
                if flag.takes == "toggle" and self.program in BOOLEANS
                else flag
            )

    def fields_and_calls(self) -> Iterator[Flag]:
        """Flags as their sources say."""
        for module in self.parsers if self.program in PARSED else ():
            for call in _calls(module):
                names = tuple(
                    argument.value
                    for argument in call.args
                    if isinstance(argument, ast.Constant) and str(argument.value).startswith("-")
                )
                short = self.program in ("accelerate", "deepspeed")
                names = tuple(name for name in names if short or len(name) > 2)
                if names:
                    keywords = {one.arg: one.value for one in call.keywords if one.arg}
                    yield Flag(names, *self.of_call(keywords, None))
        if self.program == "megatron" and any(
            "ArgumentGroupFactory" in ast.unparse(one) for one in self.parsers
        ):
            for name in GROUPS:
                yield from self.of_group(name)
        for name in ROOTS[self.program]:
            yield from self.nested(name)
        for name in self.plugins:
            yield from self.nested(name)
        for script, names in SCRIPTS.items() if self.program == "trl" else ():
            for name in names:
                for flag in self.nested(name):
                    self.scripts.setdefault(flag.names[0].replace("_", "-"), set()).add(script)
                    yield flag
        for function in self.functions:
            arguments = [*function.args.args, *function.args.kwonlyargs]
            for argument in arguments:
                if argument.annotation is None:
                    continue
                inside = ast.unparse(argument.annotation)
                if inside in self.classes:
                    yield from self.nested(inside, f"--{argument.arg}.")
                else:
                    takes, kind = _plain(
                        *self.of_annotation(argument.arg, argument.annotation), argument.annotation
                    )
                    if argument.arg in ("optimizer", "data"):
                        takes, kind = "value", "str"
                    yield Flag((f"--{argument.arg}",), takes, kind)

    def meta(self, owner: str, field: str) -> dict[str, ast.expr]:
        """What a field says of its flag (`argparse_meta`)."""
        default = self.defaults.get((owner, field))
        found: dict[str, ast.expr] = {}
        for node in ast.walk(default) if default is not None else ():
            if isinstance(node, ast.Dict):
                pairs = {
                    ast.literal_eval(key): value
                    for key, value in zip(node.keys, node.values, strict=True)
                    if isinstance(key, ast.Constant)
                }
                if "argparse_meta" not in pairs:
                    found |= pairs
        return found

    def of_group(self, name: str) -> Iterator[Flag]:
        """Flags that Megatron makes from the fields of a class: booleans are switches, `--no-x` where x is on."""
        for owner, field, annotation in self.fields(name):
            takes, kind = self.of_annotation(field, annotation)
            dashed = field.replace("_", "-")
            meta = self.meta(owner, field)
            if "arg_names" in meta:
                takes, kind = self.of_call(meta, (takes, kind))
                takes, kind = ("switch", "-") if takes == "toggle" else (takes, kind.removesuffix("?"))
                yield Flag(tuple(self.words(meta["arg_names"]) or ()), takes, kind)
            elif takes == "toggle":
                default = self.defaults.get((owner, field))
                on = isinstance(default, ast.Constant) and default.value is True
                yield Flag((f"--{'no-' if on else ''}{dashed}",), "switch", "-")
            else:
                yield Flag((f"--{dashed}",), takes, kind.removesuffix("?"))


def flag_table(program: str, trees: list[Path]) -> str:
    """The table of a program's flags."""
    versions = [tree.name.partition("-")[2] for tree in trees]
    found: dict[str, tuple[Flag, list[str]]] = {}
    scripts: dict[str, set[str]] = {}
    for tree, version in zip(trees, versions, strict=True):
        seen: dict[str, Flag] = {}
        classes = Classes(program, tree)
        for flag in classes.all():
            key = flag.names[0].replace("_", "-")
            seen[key] = merged(seen[key], flag) if key in seen else flag
        for key, flag in seen.items():
            was, present = found.get(key, (flag, []))
            found[key] = (merged(was, flag), [*present, version])
            scripts.setdefault(key, set()).update(classes.scripts.get(key, ()))
    judged = _judged(DATA / f"{program}_flags.txt")
    rows = []
    for key, (flag, present) in found.items():
        names = [
            name.replace("_", "-") if name.startswith("--") else name for name in dict.fromkeys(flag.names)
        ]
        names.sort(key=lambda name: not name.startswith("--"))
        effect, about = next((judged[name] for name in names if name in judged), ("memory", ""))
        row = f"{','.join(dict.fromkeys(names))} {flag.takes} {flag.kind or 'str'} {effect}"
        having = scripts.get(key, set())
        only = f" @{','.join(sorted(having))}" if having and "" not in having else ""
        rows.append(row + _between(sorted(set(present), key=versions.index), versions) + only + about)
    return "\n".join([f"# versions {' '.join(versions)}", *sorted(rows)])


if __name__ == "__main__":
    what, *paths = sys.argv[1:]
    print(flag_table(what, [Path(path) for path in paths]))
