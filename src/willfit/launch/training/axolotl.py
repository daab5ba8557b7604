"""Reading axolotl's commands: `axolotl train cfg.yml`, `accelerate launch -m axolotl.cli.train cfg.yml`.

Keys are those of `axolotl/utils/schemas` and of its integrations (`data/axolotl_flags.txt`, 0.5 to 0.19). Flags
`--micro-batch-size 2` replace keys of the file. A key that axolotl does not have is left alone by it, so that a note
names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import basename
from typing import Any

from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.config_files import read_settings
from willfit.launch.flags import FlagTable, did_you_mean, flag_table
from willfit.launch.scanning import Dialect
from willfit.launch.training.axolotl_settings import settings_of
from willfit.launch.training.commands import allocator, flag_of, not_counted, read
from willfit.launch.training.keys import Keys, path_of
from willfit.launch.training.processes import Processes, processes_of

PROGRAM = "axolotl"
READS_VARIABLES = True

_MODULES = ("axolotl.cli.train", "axolotl.cli.main", "scripts/finetune.py", "axolotl")

#: Words behind `axolotl` that train nothing.
_OTHERS = ("preprocess", "evaluate", "inference", "merge-lora", "merge-sharded-fsdp-weights", "fetch", "vllm-serve",
           "quantize", "delinearize-llama4", "lm-eval", "agent-docs", "config-schema")  # fmt: skip

#: Flags that are axolotl's own and no keys (`axolotl/cli/main.py`, `args.py`): with a value, and without.
_WITH_VALUE = ("--launcher", "--num-processes", "--num_processes", "--cloud", "--sweep", "--num-machines")
_ALONE = (
    "--accelerate",
    "--no-accelerate",
    "--debug",
    "--debug-text-only",
    "--prompter",
    "--shard",
    "--quiet",
)


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts axolotl."""
    if basename(words[0]) == "axolotl":
        return len(words) > 1
    script = (processes_of(words).rest or [""])[0]
    return script in _MODULES


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts axolotl.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of axolotl; None for the newest that is known.
    variables
        What is set for it.

    Raises
    ------
    BadInput
        For a command that trains nothing, a file that is not there, or a value of the wrong kind.
    """
    if basename(words[0]) == "axolotl":
        command, *rest = words[1:]
        start = Processes(None, [])
    else:
        start = processes_of(words)
        script, *rest = start.rest
        command = "train" if script not in ("axolotl", "axolotl.cli.main") else (rest.pop(0) if rest else "")
    if command != "train":
        hint = (
            "known: axolotl train CONFIG"
            if command in _OTHERS
            else did_you_mean(command, ("train", *_OTHERS))
        )
        raise BadInput(f"axolotl {command[:40]} trains nothing", hint)
    rest, start = _own(rest, start)
    table = flag_table("axolotl_flags.txt")
    dialect = Dialect(abbreviations=False, underscores=True)
    files = [word for word in rest if word.endswith((".yml", ".yaml")) or "://" in word]
    flags = [word for word in rest if word not in files]
    found = read(flags, table, PROGRAM, PROGRAM, version, dialect)
    if found.positionals or len(files) != 1:
        what = (
            f"{found.positionals[0][:60]!r} belongs to no flag"
            if found.positionals
            else "one config is needed"
        )
        raise BadInput(f"{PROGRAM} train: {what}", "write axolotl train CONFIG.yml")
    values = read_settings(path_of(files[0]))
    if values is None:
        raise BadInput(f"{PROGRAM}: {files[0][:80]} is not here", "give the path of a file that is")
    keys = Keys(PROGRAM, {**values, **found.keys.values})
    model, settings, devices, notes = settings_of(keys, start, version, allocator(variables or {}))
    return Launch(
        engine="training",
        model=model,
        revision=keys.word("revision_of_model") or keys.word("model_revision"),
        settings=settings,
        devices=devices,
        notes=(*found.notes, *start.notes, *notes, *_unknown(keys, table), *not_counted(keys, table)),
    )


def _own(words: Sequence[str], start: Processes) -> tuple[list[str], Processes]:
    """The words without axolotl's own flags and the launcher's, which stand behind `--`, and what these say."""
    before = list(words[: words.index("--")]) if "--" in words else list(words)
    behind = list(words[words.index("--") + 1 :]) if "--" in words else []
    said: dict[str, str] = {}
    rest: list[str] = []
    index = 0
    while index < len(before):
        name, equals, value = before[index].partition("=")
        index += 1
        if name in _ALONE:
            continue
        if name not in _WITH_VALUE:
            rest.append(before[index - 1])
            continue
        if not equals:
            if index >= len(before):
                raise BadInput(f"{PROGRAM}: {name} needs a value")
            value = before[index]
            index += 1
        said[name.replace("_", "-")] = value
    launcher = ["torchrun"] if said.get("--launcher") == "torchrun" else ["accelerate", "launch"]
    if behind:
        start = processes_of([*launcher, *behind, "axolotl.cli.train"])
    if said.get("--launcher") == "python":
        start = start._replace(devices=1)
    if "--num-processes" in said:
        start = processes_of(["accelerate", "launch", "--num_processes", said["--num-processes"], "x"])
    return rest, start


def _unknown(keys: Keys, table: FlagTable) -> list[str]:
    """Notes on keys that axolotl does not have."""
    notes = []
    for name in dict.fromkeys(key.partition(".")[0] for key in keys.values):
        if flag_of(name, table) is None and _given(keys, name):
            known = [spelling[2:].replace("-", "_") for spelling in table.flags]
            notes.append(f"{PROGRAM} has no key {name[:60]}: {did_you_mean(name, known)}")
            keys.see(name)
    return notes


def _given(keys: Keys, name: str) -> bool:
    values: list[Any] = [
        value for key, value in keys.values.items() if key == name or key.startswith(name + ".")
    ]
    return any(value not in (None, False, "") for value in values)
