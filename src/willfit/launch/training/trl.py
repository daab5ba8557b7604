"""Reading TRL's commands: `trl sft`, `trl dpo`, `trl grpo`, ... with `--config FILE` and accelerate's flags among them.

The command reads its own arguments, and hands all others to `accelerate launch` (`cli/commands/training.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import basename
from typing import Any

from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.flags import FlagTable, did_you_mean, flag_table, unknown_flag
from willfit.launch.training import accelerate_config
from willfit.launch.training.hugging_face import launch_of, with_file
from willfit.launch.training.launcher_flags import launcher_flags
from willfit.launch.training.own_words import flag_of, told_apart
from willfit.launch.training.scripts import known
from willfit.launch.training.trl_settings import OBJECTIVES

PROGRAM = "trl"
READS_VARIABLES = True

_OTHERS = ("env", "chat", "vllm-serve")

#: A name or path, which is accelerate's `--config_file` (`cli/accelerate_config.py`).
_CONFIG = "--accelerate_config"


def recognises(words: Sequence[str]) -> bool:
    """Whether a command is TRL's."""
    if basename(words[0]) != PROGRAM or len(words) < 2:
        return False
    # `uv run --with trl sft.py` names the package.
    close = words[1].isalpha() and did_you_mean(words[1], OBJECTIVES).startswith("did")
    return close or words[1] in (*OBJECTIVES, *_OTHERS)


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command of TRL.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of TRL; None for the newest that has all arguments.
    variables
        What is set for it.

    Raises
    ------
    BadInput
        For a command that trains nothing, an argument that neither TRL nor accelerate has, or a file that is not there.
    """
    command = words[1] if len(words) > 1 else ""
    if command not in OBJECTIVES:
        if command in _OTHERS:
            raise BadInput(f"trl {command} trains nothing", f"known: trl {', '.join(OBJECTIVES)}")
        raise BadInput(f"trl has no command {command[:40]!r}", did_you_mean(command, OBJECTIVES))
    program = f"trl {command}"
    script, trainer = known(f"{command}.py", [])
    table, own = flag_table("accelerate_flags.txt"), _own_table(command)
    file, rest = with_file(words[2:], program)
    apart = told_apart(rest, own)
    if apart.positionals:
        raise BadInput(f"{program}: {apart.positionals[0][:60]!r} belongs to no flag")
    handed = []
    for flag, values in apart.own:
        name = flag.partition("=")[0]
        if flag_of(name, table) is None and name != _CONFIG:
            raise unknown_flag(name, (*own.flags, *table.flags), program)
        handed += [flag.replace(_CONFIG, "--config_file"), *values]
    launcher, left = launcher_flags(handed, table, program)
    if left:
        raise BadInput(f"{program}: {left[0][:60]!r} belongs to no flag")
    start = accelerate_config.started({**_launcher(file, own, program), **launcher}, [])
    mine = {
        name: value for name, value in file.items() if name == "env" or flag_of(f"--{name}", own) is not None
    }
    return launch_of(program, apart.known, mine, script, trainer, start, version, variables or {})


def _own_table(command: str) -> FlagTable:
    """The arguments of one command: of its config, `TrainingArguments` and the classes that all commands have."""
    own, table = flag_table("trl_flags.txt").of_program(command), flag_table("trainer_arguments_flags.txt")
    # What one command's config says anew, others have from `TrainingArguments`.
    return own._replace(flags={**table.flags, **own.flags}, negatives={**table.negatives, **own.negatives})


def _launcher(file: Mapping[str, Any], own: FlagTable, program: str) -> dict[str, Any]:
    """Names of a file that are accelerate's.

    Raises
    ------
    BadInput
        For a name that is nobody's.
    """
    table, found = flag_table("accelerate_flags.txt"), {}
    for name, value in file.items():
        if name == "env" or flag_of(f"--{name}", own) is not None:
            continue
        if name == _CONFIG.lstrip("-"):
            found["config_file"] = value
        elif flag_of(f"--{name}", table) is None:
            known_names = [flag[2:].replace("-", "_") for flag in (*own.flags, *table.flags)]
            raise BadInput(f"{program}: there is no key {name[:60]}", did_you_mean(name, known_names))
        else:
            found[name] = value
    return found
