"""Reading commands that start a script with `HfArgumentParser`: `accelerate launch train.py ...`, `torchrun`, `python`.

Arguments are those of transformers' `TrainingArguments` (`data/trainer_arguments_flags.txt`), of TRL's configs
(`data/trl_flags.txt`), and of scripts that many people use (`data/script_flags.txt`). Others are the script's
own. A JSON or YAML file may stand for them all, and TRL's parser takes one behind `--config`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from os.path import basename
from typing import Any

from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.config_files import read_json_settings, read_settings
from willfit.launch.flags import FlagTable, flag_table
from willfit.launch.scanning import Dialect
from willfit.launch.training.commands import allocator, newest_with, not_counted, read
from willfit.launch.training.hf_settings import settings_of
from willfit.launch.training.hf_sharing import Asked
from willfit.launch.training.keys import Keys, path_of
from willfit.launch.training.own_words import flag_of, told_apart
from willfit.launch.training.processes import Processes, processes_of, script_words
from willfit.launch.training.scripts import OWN, Script, known

READS_VARIABLES = True

#: Arguments that show that a script trains.
_MARKS = frozenset({
    "--per_device_train_batch_size", "--per_gpu_train_batch_size", "--gradient_accumulation_steps", "--fsdp",
    "--num_train_epochs", "--deepspeed", "--max_train_steps", "--gradient_checkpointing", "--micro_batch_size",
    "--batch_size_training", "--zero_stage", "--do_train", "--use_peft", "--lora_r", "--output_dir",
})  # fmt: skip

#: Names of scripts that train, whose arguments may all be in a file.
_NAMES = re.compile(
    r"(.*[_-])?(train|finetun\w+|sft|dpo|kto|orpo|cpo|grpo|rloo|reward|ppo|cpt|clm|mlm)([_-]?\w*)\.py"
)

_FILES = (".yaml", ".yml", ".json")

DIALECT = Dialect(abbreviations=False, underscores=True)

#: Keys of a file that are no arguments (TRL's `env`).
_APART = ("env", "config")

#: How many of a script's own arguments are named in one note.
_NAMED = 12


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts a script that trains."""
    script, *rest = script_words(words)
    if not script.endswith(".py") and not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", script):
        return False
    flags = _flags(rest)
    if len(_MARKS & set(flags)) > 1 or (_MARKS & set(flags) and known(script, flags)[0] != OWN):
        return True
    file = "--config" in flags or bool(rest and rest[0].endswith(_FILES))
    named = _NAMES.fullmatch(basename(script)) is not None or known(script, flags)[0] != OWN
    return named and (file or "--model_name_or_path" in flags or bool(_MARKS & set(flags)))


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts a training script.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of TRL for scripts with its trainers, else of transformers; None for the newest that has all arguments.
    variables
        What is set for it.

    Raises
    ------
    BadInput
        If no model is named, a file is not there, or a value is wrong.
    """
    start = processes_of(words)
    path, *rest = start.rest
    script, trainer = known(path, _flags(rest))
    file, rest = with_file(rest, basename(path))
    return launch_of(basename(path), rest, file, script, trainer, start, version, variables or {})


def launch_of(
    program: str,
    words: Sequence[str],
    file: Mapping[str, Any],
    script: Script,
    trainer: str | None,
    start: Processes,
    version: str | None,
    variables: Mapping[str, str],
) -> Launch:
    """Read a script's arguments.

    Parameters
    ----------
    program
        How to call the script in an error.
    words, file
        Its arguments, and those of its file, which they win over.
    script, trainer
        What it does by itself, and TRL's trainer in it.
    start
        The launcher in front.
    version, variables
        As in `parse`.

    Raises
    ------
    BadInput
        As in `parse`.
    """
    table = table_of(script.framework)
    given = {**variables, **{name: str(value) for name, value in _section(file, "env", program).items()}}
    apart = told_apart(words, table)
    stray = apart.positionals
    engine = "TRL" if script.framework == "trl" else "transformers"
    found = read(apart.known, table, program, engine, version, DIALECT)
    if found.positionals:
        raise BadInput(f"{program}: {found.positionals[0][:60]!r} belongs to no argument", "leave it out")
    own = {flag.partition("=")[0] for flag, _ in apart.own}
    own |= {f"--{name}" for name in file if flag_of(f"--{name}", table) is None and name not in _APART}
    values = {name: value for name, value in file.items() if f"--{name}" not in own and name not in _APART}
    keys = Keys(program, {**script.defaults, **values, **found.keys.values})
    beside = _beside([*apart.known, *(f"--{name}" for name in values)]) if script.framework == "trl" else {}
    asked = Asked(keys, script, trainer, start, found.version or version, beside, allocator(given))
    model, settings, more = settings_of(asked)
    devices = start.devices
    if settings.layout.device_map and start.alone:
        devices = None
    more += _of_one_process(start, settings.layout.device_map, given)
    return Launch(
        engine="training",
        model=model,
        revision=_revision(keys),
        settings=settings,
        devices=devices,
        notes=(
            *found.notes,
            *start.notes,
            *more,
            *_own(own, program),
            *(f"{word[:40]!r} belongs to no argument" for word in stray),
            *not_counted(keys, table, {"model_revision": "main", **script.defaults}),
        ),
    )


@cache
def table_of(framework: str) -> FlagTable:
    """The arguments that are known; versions count for the framework's own table alone."""
    others = ["trainer_arguments_flags.txt", "script_flags.txt"]
    if framework != "trl":
        others = ["script_flags.txt", "trl_flags.txt"]
    own = "trl_flags.txt" if framework == "trl" else "trainer_arguments_flags.txt"
    table, first = flag_table(own, *others), flag_table(own)
    if framework not in ("trl", "transformers"):
        # A loop of its own, which has such arguments whatever transformers has.
        first = first._replace(flags={}, versions=())
    # TRL's classes say some fields of `TrainingArguments` anew, in some versions.
    again = flag_table(others[0]).flags if framework == "trl" else {}
    flags = {
        name: flag if name in first.flags and name not in again else flag._replace(since="", until="")
        for name, flag in table.flags.items()
    }
    return table._replace(flags=flags, versions=first.versions)


def _beside(words: Sequence[str]) -> dict[str, str]:
    """The version of transformers beside TRL, where arguments are gone from the newest."""
    table = flag_table("trainer_arguments_flags.txt")
    flags = [flag_of(word.partition("=")[0], table) for word in words if word.startswith("--")]
    fitting = newest_with([flag for flag in flags if flag is not None], table.versions)
    return {"transformers": fitting} if fitting else {}


def _flags(words: Sequence[str]) -> list[str]:
    """Arguments by name, with underscores."""
    return ["--" + word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")]


def with_file(words: Sequence[str], program: str) -> tuple[dict[str, Any], list[str]]:
    """What a file says that stands for arguments, and the other words.

    Parameters
    ----------
    words
        A script's arguments: `--config FILE` among them, or a file in front.
    program
        How to call the script in an error.

    Raises
    ------
    BadInput
        If it is not there, or holds no names and values.
    """
    rest = list(words)
    name = None
    if "--config" in rest:
        index = rest.index("--config")
        if index + 1 >= len(rest):
            raise BadInput(f"{program}: --config needs a value", "write --config FILE")
        name = rest[index + 1]
        rest[index : index + 2] = []
    elif rest and rest[0].endswith(_FILES) and not rest[0].startswith("-"):
        name = rest.pop(0)
    else:
        joined = next((word for word in rest if word.startswith("--config=")), None)
        if joined is not None:
            name = joined.partition("=")[2]
            rest.remove(joined)
    if name is None:
        return {}, rest
    path = path_of(name)
    found = read_json_settings(path) if path.suffix == ".json" else read_settings(path)
    if found is None:
        raise BadInput(f"{program}: {name[:80]} is not here", "give the path of a file that is")
    return found, rest


def _section(file: Mapping[str, Any], name: str, program: str) -> Mapping[str, Any]:
    section = file.get(name)
    if section is not None and not isinstance(section, Mapping):
        raise BadInput(f"{program}: {name} does not hold names and values")
    return section or {}


def _revision(keys: Keys) -> str | None:
    said = keys.word("model_revision")
    return None if said in (None, "main") else said


def _own(names: set[str], program: str) -> list[str]:
    if not names:
        return []
    listed = sorted(names)
    shown = ", ".join(name[:40] for name in listed[:_NAMED])
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    verb = "belongs" if len(listed) == 1 else "belong"
    return [f"{shown}{more} {verb} to {program} itself: not counted"]


def _of_one_process(start: Processes, spread: bool, variables: Mapping[str, str]) -> list[str]:
    seen = [one for one in variables.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()]
    if start.alone and not spread and len(seen) > 1:
        return [
            f"one process with {len(seen)} devices runs torch's DataParallel, whose first device holds more: "
            "one device is counted"
        ]
    return []
