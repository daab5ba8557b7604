"""Reading LLaMA-Factory's commands: `llamafactory-cli train cfg.yaml key=value`, `torchrun src/train.py cfg.yaml`.

Keys are those of its own arguments (`data/llamafactory_flags.txt`, 0.7 to 0.9) and transformers' `TrainingArguments`; a
key of neither is refused, as its parser does (`llamafactory/hparams/parser.py: read_args`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os.path import basename
from typing import Any

from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.config_files import read_json_settings, read_settings
from willfit.launch.flags import FlagTable, flag_table
from willfit.launch.scanning import Dialect
from willfit.launch.training.commands import allocator, check_keys, not_counted, read
from willfit.launch.training.keys import Keys, path_of
from willfit.launch.training.llamafactory_settings import settings_of
from willfit.launch.training.processes import processes_of

PROGRAM = "LLaMA-Factory"
READS_VARIABLES = True

_CLI = ("llamafactory-cli", "lmf")
_SCRIPT = re.compile(r"(train|train_bash)\.py")
_MODULES = ("llamafactory.cli", "llamafactory.launcher", "llmtuner.cli", "src.train")
_MARKS = ("--stage", "--finetuning_type", "--template", "--dataset_dir", "--lora_target")


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts a training of LLaMA-Factory."""
    if basename(words[0]) in _CLI:
        return True
    script, *rest = processes_of(words).rest or [""]
    if script in _MODULES:
        return True
    if not _SCRIPT.fullmatch(basename(script)):
        return False
    file = rest[0] if rest and rest[0].endswith((".yaml", ".yml", ".json")) else ""
    return (
        basename(script) == "train_bash.py"
        or any(word in _MARKS for word in rest)
        or (bool(file) and script in ("src/train.py", "./src/train.py", "train.py"))
    )


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts a training of LLaMA-Factory.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of LLaMA-Factory; None for the newest that is known.
    variables
        What is set for it: `NPROC_PER_NODE`, `NNODES`, `FORCE_TORCHRUN`.

    Raises
    ------
    BadInput
        For a command that trains nothing, a key that it does not have, a file that is not there, or a wrong value.
    """
    given = dict(variables or {})
    cli = basename(words[0]) in _CLI
    start = processes_of(words)
    rest = list(words[1:]) if cli else start.rest[1:]
    if cli or start.rest[0] in _MODULES:
        command, *rest = rest or [""]
        if command != "train":
            raise BadInput(
                f"llamafactory-cli {command[:40]} trains nothing", "known: llamafactory-cli train CONFIG"
            )
    table = _table()
    keys, notes = _keys(rest, table, version)
    devices = _devices(given) if cli else start.devices
    expandable = allocator(given)
    if cli and expandable is None and (devices or 1) > 1:
        expandable = True
    model, settings, more = settings_of(keys, start, version, expandable)
    return Launch(
        engine="training",
        model=model,
        revision=keys.word("model_revision"),
        settings=settings,
        devices=devices,
        notes=(*notes, *start.notes, *more, *not_counted(keys, table, {"model_revision": "main"})),
    )


def _table() -> FlagTable:
    return flag_table("llamafactory_flags.txt", "trainer_arguments_flags.txt")


def _keys(words: Sequence[str], table: FlagTable, version: str | None) -> tuple[Keys, list[str]]:
    """What a file and the words behind it say, or flags alone."""
    file = words[0] if words and words[0].endswith((".yaml", ".yml", ".json")) else None
    if file is None:
        own = flag_table("llamafactory_flags.txt")
        flags = {
            name: flag if name in own.flags else flag._replace(since="", until="")
            for name, flag in table.flags.items()
        }
        dialect = Dialect(abbreviations=False, underscores=True)
        found = read(words, table._replace(flags=flags), PROGRAM, PROGRAM, version, dialect)
        if found.positionals:
            raise BadInput(f"{PROGRAM}: {found.positionals[0][:60]!r} belongs to no flag")
        return found.keys, found.notes
    path = path_of(file)
    values = read_json_settings(path) if path.suffix == ".json" else read_settings(path)
    if values is None:
        raise BadInput(f"{PROGRAM}: {file[:80]} is not here", "give the path of a file that is")
    for word in words[1:]:
        name, equals, text = word.partition("=")
        if not equals or name.startswith("-"):
            raise BadInput(f"{PROGRAM}: {word[:60]!r} is not of the form key=value")
        values[name] = _read(text)
    keys = Keys(PROGRAM, values)
    check_keys(keys, table, file)
    return keys, []


def _read(text: str) -> Any:
    """A value as YAML reads it."""
    import yaml  # type: ignore[import-untyped]

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _devices(variables: Mapping[str, str]) -> int | None:
    """Processes that the program starts: one for each device that it sees, or as many as its variables say."""
    each, nodes = variables.get("NPROC_PER_NODE", ""), variables.get("NNODES", "1")
    for name, text in (("NPROC_PER_NODE", each or "1"), ("NNODES", nodes)):
        if not text.isdecimal() or not int(text[:6]):
            raise BadInput(f"{PROGRAM}: {name} is {text[:40]!r}, expected a whole number of at least 1")
    return int(each) * int(nodes) if each else None
