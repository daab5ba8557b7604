"""Reading torchtitan's commands: `torchrun ... -m torchtitan.train ...`, and the scripts that start it.

Up to 0.2 a TOML file says what is trained (`--job.config_file`, or `CONFIG_FILE=... ./run_train.sh`), since 0.3 a
module and a function of its registry (`--module llama3 --config llama3_8b`, or `MODULE=... CONFIG=... ./run_train.sh`).
Flags `--section.key` win over both. The files that are torchtitan's own are known by their paths, if they are not
there.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from os.path import basename
from pathlib import Path
from typing import Any

from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.flags import FlagTable, did_you_mean, flag_table
from willfit.launch.scanning import Dialect
from willfit.launch.training.commands import allocator, check_keys, not_counted, read
from willfit.launch.training.keys import Keys, path_of
from willfit.launch.training.named_configs import NamedConfigs
from willfit.launch.training.starting import script_of, started
from willfit.launch.training.torchtitan_settings import model_of_keys, settings_of

PROGRAM = "torchtitan"
READS_VARIABLES = True

NEWEST = "0.3.0"
#: The last version whose configs are TOML files.
LAST_TOML = "0.2.2"

CONFIGS = NamedConfigs("torchtitan_configs.jsonl", NEWEST)

_SHELL = re.compile(r"run_(llama_)?train\.sh|multinode_trainer\.slurm")
_OWN_FILE = re.compile(r".*?(?:models/)?([\w.]+)/(?:train_configs/)?([\w.]+)\.toml")
_LARGEST_FILE = 2**20

#: Processes that the scripts start, and what they train if nothing is said (`run_train.sh`).
_PROCESSES = 8


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts torchtitan."""
    if _SHELL.fullmatch(basename(words[0])) or (len(words) > 1 and _SHELL.fullmatch(basename(words[1]))):
        return True
    script = script_of(words)
    if script == "torchtitan.train" or script.endswith("torchtitan/train.py"):
        return True
    titan = any(word.partition("=")[0].replace("-", "_") == "__job.config_file" for word in words)
    return basename(script) == "train.py" and titan


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts torchtitan.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of torchtitan; None for the newest whose commands look like this.
    variables
        What is set for it: `NGPU`, `CONFIG_FILE`, `MODULE`, `CONFIG`, `PYTORCH_ALLOC_CONF`.

    Raises
    ------
    BadInput
        For a flag or key that torchtitan does not have, a file that is not there, or a value that it would refuse.
    """
    given = dict(variables or {})
    script = next((index for index in (0, 1) if _SHELL.fullmatch(basename(words[index]))), None)
    expandable = allocator(given)
    others: list[str] = []
    if script is not None:
        rest = _of_script(list(words[script + 1 :]), given, words[script], version)
        processes = given.get("NGPU", str(_PROCESSES))
        if not processes.isdecimal() or not int(processes[:9]):
            raise BadInput(f"{PROGRAM}: NGPU is {processes[:40]!r}, expected a whole number of at least 1")
        devices: int | None = int(processes)
        expandable = True if expandable is None else expandable
        if "TRAIN_FILE" in given and given["TRAIN_FILE"] not in ("torchtitan.train", "torchtitan/train.py"):
            others.append(f"{given['TRAIN_FILE'][:60]} (TRAIN_FILE) is read as torchtitan.train")
    else:
        start = started(words)
        rest, devices = start.rest[1:], start.devices
    table = flag_table("torchtitan_flags.txt")
    module, config, rest = _chosen(rest)
    asked = version or (LAST_TOML if config is None else NEWEST)
    found = read(rest, table, PROGRAM, PROGRAM, asked, Dialect(abbreviations=False, underscores=True))
    if found.positionals:
        raise BadInput(
            f"{PROGRAM}: {found.positionals[0][:60]!r} belongs to no flag", "write --section.key value"
        )
    values, notes = _base(module, config, found.keys, table, asked)
    keys = Keys(PROGRAM, {**values, **found.keys.values})
    keys.see("job")
    model, model_config = model_of_keys(keys)
    settings, more = settings_of(keys, devices, version or (None if config else asked), expandable)
    return Launch(
        engine="training",
        model=model,
        revision=None,
        settings=settings,
        devices=devices,
        notes=(*others, *found.notes, *notes, *more, *not_counted(keys, table)),
        config=model_config,
    )


def _of_script(rest: list[str], variables: Mapping[str, str], script: str, version: str | None) -> list[str]:
    """The flags that `run_train.sh` hands on, by its variables."""
    file = variables.get("CONFIG_FILE")
    registry = "MODULE" in variables or "CONFIG" in variables
    words = {word.partition("=")[0] for word in rest}
    if file and registry:
        raise BadInput(f"{PROGRAM}: {basename(script)} takes CONFIG_FILE or MODULE and CONFIG, not both")
    if file:
        return [*rest, "--job.config_file", file]
    new = registry or bool(words & {"--module", "--config"})
    if not new and version is not None and parse_version(version) < parse_version(NEWEST):
        return [*rest, "--job.config_file", "./torchtitan/models/llama3/train_configs/debug_model.toml"]
    module, config = variables.get("MODULE", "llama3"), variables.get("CONFIG", "llama3_debugmodel")
    before = [] if "--module" in words else ["--module", module]
    return [*before, *([] if "--config" in words else ["--config", config]), *rest]


def _chosen(words: list[str]) -> tuple[str | None, str | None, list[str]]:
    """`--module` and `--config`, which are read before all other flags, and those."""
    found: dict[str, str] = {}
    rest: list[str] = []
    index = 0
    while index < len(words):
        name, equals, value = words[index].partition("=")
        index += 1
        if name not in ("--module", "--config"):
            rest.append(words[index - 1])
            continue
        if not equals:
            if index >= len(words):
                raise BadInput(f"{PROGRAM}: {name} needs a value")
            value = words[index]
            index += 1
        found[name] = value
    if ("--module" in found) != ("--config" in found):
        missing = "--module" if "--config" in found else "--config"
        raise BadInput(f"{PROGRAM}: {missing} is required", "write --module llama3 --config llama3_8b")
    return found.get("--module"), found.get("--config"), rest


def _base(
    module: str | None, config: str | None, flags: Keys, table: FlagTable, version: str
) -> tuple[dict[str, Any], list[str]]:
    """What the config says that the flags change."""
    if config is not None:
        named = CONFIGS.find(config, version)
        if named is None or "/" in config:
            names = [name for name in CONFIGS.names() if "/" not in name]
            raise BadInput(f"{PROGRAM} has no config {config[:60]}", did_you_mean(config, names))
        if (module or "").rpartition(".")[2] != named.values["model.name"]:
            names = [name for name in CONFIGS.names() if "/" not in name]
            of = [name for name in names if name.startswith(str(module))]
            raise BadInput(
                f"{PROGRAM}: module {str(module)[:40]} has no config {config}", f"known: {', '.join(of[:6])}"
            )
        return named.values, [] if named.asked else [
            f"{config} is read as in {PROGRAM} {named.version}, which has it"
        ]
    file = flags.word("job.config_file")
    if file is None:
        return {}, []
    values = _file(path_of(file))
    if values is not None:
        keys = Keys(file, values)
        if not (keys.get("job.custom_config_module") or keys.get("experimental.custom_args_module")):
            check_keys(keys, table, file)
        return keys.values, []
    own = _OWN_FILE.fullmatch(file)
    known = CONFIGS.find(f"{own[1]}/{own[2]}", version) if own else None
    if known is None:
        raise BadInput(
            f"{PROGRAM}: {file} (--job.config_file) is not here", "give the path of a file that is"
        )
    release = version if known.asked else known.version
    return known.values, [f"{file} is not here: read as the file of that name in {PROGRAM} {release}"]


def _file(path: Path) -> dict[str, Any] | None:
    """The settings of a TOML file; None if it is not there."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error
    if len(text) > _LARGEST_FILE:
        raise BadInput(f"{path} is too large for a file of settings")
    try:
        return tomllib.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not TOML: {' '.join(str(error).split())[:100]}") from error
