"""Reading LitGPT's commands: `litgpt finetune_lora MODEL --config x.yaml --precision bf16-true --quantize bnb.nf4 ...`.

Flags and keys are those of LitGPT 0.4 and 0.5 (`data/litgpt_flags.txt`). A file of its `config_hub` is known by its
path or address, if it is not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os.path import basename
from typing import Any

from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.config_files import read_settings
from willfit.launch.flags import did_you_mean, flag_table
from willfit.launch.scanning import Dialect
from willfit.launch.training.commands import allocator, check_keys, not_counted, read
from willfit.launch.training.keys import Keys, path_of
from willfit.launch.training.litgpt_settings import METHODS, model_of_keys, settings_of
from willfit.launch.training.named_configs import NamedConfigs
from willfit.launch.training.starting import script_of, started

PROGRAM = "litgpt"
READS_VARIABLES = True

NEWEST = "0.5.13"

CONFIGS = NamedConfigs("litgpt_configs.jsonl", NEWEST)

_SCRIPT = re.compile(
    r"(?:.*/)?(?:litgpt/|lit_gpt/)?(?:(finetune)/(lora|full|adapter|adapter_v2)|pretrain)\.py"
)
_OWN_FILE = re.compile(r".*config_hub/((?:finetune|pretrain)/.*\.ya?ml)")

#: Keys whose own keys belong to classes that are named in the file.
_FREE = ("data", "optimizer", "model_config")


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts a training of LitGPT."""
    name = basename(words[0])
    if name == "litgpt":
        return len(words) > 1
    script = script_of(words)
    return script in ("litgpt", "litgpt.__main__") or (
        _SCRIPT.fullmatch(script) is not None
        and any("checkpoint_dir" in word or "--config" in word for word in words)
    )


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts a training of LitGPT.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of LitGPT; None for the newest that is known.
    variables
        What is set for it.

    Raises
    ------
    BadInput
        For a command that trains nothing, a flag or key that LitGPT does not have, or a value that it would refuse.
    """
    method, rest = _method(words)
    program = f"{PROGRAM} {method if method == 'pretrain' else 'finetune_' + method}"
    given, free, files = _free(rest, program)
    table = flag_table("litgpt_flags.txt")
    found = read(
        given, table, program, "LitGPT", version or NEWEST, Dialect(abbreviations=False, underscores=True)
    )
    positionals = list(found.positionals)
    values, notes = _file(files, version or NEWEST)
    base = Keys(program, values)
    told = Keys(files[-1] if files else program, {
        key: value for key, value in base.values.items() if key.partition(".")[0] not in _FREE
    })  # fmt: skip
    check_keys(told, table, told.program)
    merged = {**base.values, **found.keys.values, **free}
    if "optimizer" in free or "optimizer" in found.keys.values:
        # A class that is named anew keeps nothing of the one before.
        merged = {key: value for key, value in merged.items() if key != "optimizer.class_path" or key in free}
    if positionals:
        merged["model_name" if method == "pretrain" else "checkpoint_dir"] = positionals.pop(0)
    if positionals:
        raise BadInput(f"{program}: {positionals[0][:60]!r} belongs to no flag")
    keys = Keys(program, merged)
    model, config = model_of_keys(keys, method)
    settings, devices, more = settings_of(keys, method, version, allocator(variables or {}))
    keys.see("data", "model_config", "resume")
    return Launch(
        engine="training",
        model=model,
        revision=None,
        settings=settings,
        devices=devices,
        notes=(*found.notes, *notes, *more, *not_counted(keys, table)),
        config=config,
    )


def _method(words: Sequence[str]) -> tuple[str, list[str]]:
    """What is trained, and the words behind."""
    script = script_of(words)
    own = _SCRIPT.fullmatch(script)
    if own is not None and basename(words[0]) != "litgpt":
        return own[2] or "pretrain", started(words).rest[1:]
    rest = list(words[1:]) if basename(words[0]) == "litgpt" else started(words).rest[1:]
    command, *rest = rest or [""]
    if command == "finetune":
        # 0.4 has the method as a word of its own; without one it is LoRA.
        if rest and rest[0] in METHODS:
            return rest[0], rest[1:]
        return "lora", rest
    if command == "pretrain":
        return "pretrain", rest
    if command.startswith("finetune_") and command.removeprefix("finetune_") in METHODS:
        return command.removeprefix("finetune_"), rest
    known = ["pretrain", *(f"finetune_{one}" for one in METHODS)]
    if command in ("chat", "generate", "serve", "download", "evaluate", "merge_lora") or command.startswith(
        "convert"
    ):
        raise BadInput(f"litgpt {command} trains nothing", f"known: {', '.join(known)}")
    raise BadInput(f"litgpt has no command {command[:40]!r}", did_you_mean(command, known))


def _free(words: Sequence[str], program: str) -> tuple[list[str], dict[str, Any], list[str]]:
    """Words of known flags; those of classes (`--data.num_workers`, `--optimizer.lr`); and the files (`--config`)."""
    rest: list[str] = []
    free: dict[str, Any] = {}
    files: list[str] = []
    index = 0
    while index < len(words):
        name, equals, value = words[index].partition("=")
        key = name[2:].replace("-", "_")
        index += 1
        inside = name.startswith("--") and key.partition(".")[0] in _FREE and "." in key
        if not inside and name not in ("--config", "-c"):
            rest.append(words[index - 1])
            continue
        if not equals:
            if index >= len(words):
                raise BadInput(f"{program}: {name} needs a value")
            value = words[index]
            index += 1
        if inside:
            free[key] = value
        else:
            files.append(value)
    return rest, free, files


def _file(files: Sequence[str], version: str) -> tuple[dict[str, Any], list[str]]:
    """What the files say; the last one wins."""
    values: dict[str, Any] = {}
    notes: list[str] = []
    for file in files:
        found = None if "://" in file else read_settings(path_of(file))
        if found is None:
            own = _OWN_FILE.fullmatch(file)
            named = CONFIGS.find(own[1], version) if own else None
            if named is None:
                raise BadInput(
                    f"{PROGRAM}: {file[:80]} (--config) is not here", "give the path of a file that is"
                )
            found = named.values
            notes.append(f"{file[-60:]} is not here: read as the file of that name in LitGPT {named.version}")
        values |= Keys(file, found).values
    return values, notes
