"""Reading ms-swift's commands: `swift sft|pt|rlhf ...`, `torchrun swift/cli/sft.py ...`, `megatron sft|pt|rlhf ...`.

Flags are those of ms-swift 1.7 to 4.6 (`data/swift_flags.txt`, for `megatron` also `data/swift_megatron_flags.txt`)
and transformers' `TrainingArguments`. A YAML or JSON file in their place is read as flags (`swift/cli/main.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from os.path import basename

from willfit.checkpoints.catalogue import find
from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.config_files import read_json_settings, read_settings
from willfit.launch.flags import did_you_mean, flag_table
from willfit.launch.scanning import Dialect
from willfit.launch.training.commands import allocator, not_counted, read
from willfit.launch.training.keys import path_of
from willfit.launch.training.processes import Processes, processes_of
from willfit.launch.training.swift_megatron import megatron_settings
from willfit.launch.training.swift_settings import model_of_keys, settings_of

PROGRAM = "ms-swift"
READS_VARIABLES = True

_SCRIPT = re.compile(r"(?:.*/)?(?:swift/cli/(_megatron/)?(sft|pt|rlhf)|llm_(sft|pt|rlhf|dpo))\.py")
_MODULE = re.compile(r"swift\.cli\.(_megatron\.)?(sft|pt|rlhf)")
_TRAINING = ("sft", "pt", "rlhf")
_OTHERS = ("infer", "merge-lora", "web-ui", "deploy", "rollout", "sample", "export", "eval", "app", "ui")

#: Organisations of ModelScope that hold copies.
_COPIES = (
    "LLM-Research",
    "AI-ModelScope",
    "modelscope",
    "ZhipuAI",
    "mlx-community",
    "swift",
    "TeleAI",
    "iic",
)


def recognises(words: Sequence[str]) -> bool:
    """Whether a command starts ms-swift."""
    name = basename(words[0])
    if name in ("swift", "megatron"):
        return len(words) > 1 and words[1] in (*_TRAINING, *_OTHERS)
    script = (processes_of(words).rest or [""])[0]
    return _SCRIPT.fullmatch(script) is not None or _MODULE.fullmatch(script) is not None


def parse(
    words: Sequence[str], version: str | None = None, variables: Mapping[str, str] | None = None
) -> Launch:
    """Read a command that starts ms-swift.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of ms-swift; None for the newest that is known.
    variables
        What is set for it: `NPROC_PER_NODE`, `NNODES`, `MAX_PIXELS`.

    Raises
    ------
    BadInput
        For a command that trains nothing, a flag that ms-swift does not have, or a wrong value.
    """
    given = dict(variables or {})
    method, megatron, start, alone = _method(words)
    program = f"{'megatron' if megatron else 'swift'} {method}"
    rest, more = _file(start.rest, program)
    given = {**more, **given}
    devices = start.devices
    if alone and ("NPROC_PER_NODE" in given or "NNODES" in given):
        alone, devices = False, _whole(given, "NPROC_PER_NODE") * _whole(given, "NNODES")
    elif alone:
        devices = 1 if megatron else None
    own = "swift_megatron_flags.txt" if megatron else "swift_flags.txt"
    others = (
        ("swift_flags.txt", "trainer_arguments_flags.txt") if megatron else ("trainer_arguments_flags.txt",)
    )
    table = flag_table(own, *others)._replace(versions=flag_table(own).versions)
    # What the Trainer has, too, all versions since 3 take from it.
    passed = flag_table("trainer_arguments_flags.txt").flags
    flags = {
        name: flag._replace(since="", until="")
        if name in passed or name not in flag_table(own).flags
        else flag
        for name, flag in table.flags.items()
    }
    found = read(rest, table._replace(flags=flags), program, PROGRAM, version, Dialect(underscores=True))
    version = found.version
    if found.positionals:
        raise BadInput(f"{program}: {found.positionals[0][:60]!r} belongs to no flag")
    keys = found.keys
    model = _on_hub(model_of_keys(keys))
    expandable = allocator(given)
    if megatron:
        settings, notes = megatron_settings(keys, model, method, devices, version, expandable)
    else:
        settings, notes = settings_of(
            keys, method, start._replace(devices=devices), alone, version, expandable
        )
    return Launch(
        engine="training",
        model=model,
        revision=keys.word("model_revision"),
        settings=settings,
        devices=devices,
        notes=(*found.notes, *start.notes, *notes, *not_counted(keys, table)),
    )


def _method(words: Sequence[str]) -> tuple[str, bool, Processes, bool]:
    """What is trained, whether by Megatron, the launcher in front with the flags, and whether there is none."""
    name = basename(words[0])
    if name in ("swift", "megatron"):
        if words[1] not in _TRAINING:
            raise BadInput(
                f"{name} {words[1]} trains nothing",
                f"known: {', '.join(f'{name} {one}' for one in _TRAINING)}",
            )
        return words[1], name == "megatron", Processes(None, list(words[2:])), True
    start = processes_of(words)
    script = _SCRIPT.fullmatch(start.rest[0]) or _MODULE.fullmatch(start.rest[0])
    if script is None:
        raise BadInput(
            f"{PROGRAM}: {start.rest[0][:60]} is not known", did_you_mean(start.rest[0], _TRAINING)
        )
    method = next(group for group in script.groups()[1:] if group)
    alone = basename(words[0]).startswith("python") and start.devices == 1
    method = "rlhf" if method == "dpo" else method
    return method, bool(script[1]), start._replace(rest=start.rest[1:]), alone


def _file(words: list[str], program: str) -> tuple[list[str], dict[str, str]]:
    """Flags of a YAML or JSON file that stands first, and the variables that it sets."""
    if "--config" in words:
        # Up to 3.12 the file stands behind this word.
        place = words.index("--config")
        words = [*words[place + 1 : place + 2], *words[:place], *words[place + 2 :]]
        if not words or words[0].startswith("-"):
            raise BadInput(f"{program}: --config needs a value")
    elif not words or not words[0].endswith((".yaml", ".yml", ".json")) or words[0].startswith("-"):
        return words, {}
    path = path_of(words[0])
    found = read_json_settings(path) if path.suffix == ".json" else read_settings(path)
    if found is None:
        raise BadInput(f"{program}: {words[0][:80]} is not here", "give the path of a file that is")
    variables = found.pop("ENV", None) or {}
    flags: list[str] = []
    for name, value in found.items():
        flags.append(f"--{name}")
        if isinstance(value, list):
            flags += [str(one) for one in value]
        else:
            flags.append(json.dumps(value) if isinstance(value, dict) else str(value))
    return [*flags, *words[1:]], {str(name): str(value) for name, value in dict(variables).items()}


def _whole(variables: Mapping[str, str], name: str) -> int:
    text = variables.get(name, "1")
    if not text.isdecimal() or not int(text[:6]):
        raise BadInput(f"{PROGRAM}: {name} is {text[:40]!r}, expected a whole number of at least 1")
    return int(text)


def _on_hub(model: str) -> str:
    """The model as Hugging Face calls it, where ModelScope has a copy under another organisation."""
    plain = model.rstrip("/")
    if plain.endswith("-mcore"):
        # A checkpoint that was converted for Megatron has its model's name.
        converted = find(plain.rpartition("/")[2].removesuffix("-mcore"))
        return converted.id if converted is not None else plain
    organisation, slash, name = model.partition("/")
    if slash and organisation in _COPIES and "/" not in name:
        entry = find(name)
        if entry is not None:
            return entry.id
    return model
