"""Reading `tune run [torchrun flags] RECIPE --config CONFIG [key=value ...]` of torchtune.

Configs are YAML files, or names that come with the package (`torchtune_configs.py`). As torchtune does
(`torchtune/config/_utils.py: _merge_yaml_and_cli_args`), words behind replace what the file says: `key=value`, names
joined with dots, and `~key`, which takes a key away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import basename
from typing import Any, NamedTuple

from willfit.errors import BadInput
from willfit.launch.base import Launch
from willfit.launch.config_files import read_settings
from willfit.launch.flags import did_you_mean
from willfit.launch.training.keys import Keys, path_of
from willfit.launch.training.torchrun_words import split
from willfit.launch.training.torchtune_configs import CONFIGS
from willfit.launch.training.torchtune_keys import QUIET
from willfit.launch.training.torchtune_settings import model_of_keys, settings_of

PROGRAM = "tune run"


class Recipe(NamedTuple):
    """A recipe of torchtune (`torchtune/_recipe_registry.py`, 0.1 to 0.7).

    Attributes
    ----------
    objective
        As in `TrainingSettings`.
    distributed
        It runs on several devices, sharded by FSDP.
    """

    objective: str
    distributed: bool


RECIPES: Mapping[str, Recipe] = {
    "full_finetune_single_device": Recipe("sft", False),
    "full_finetune_distributed": Recipe("sft", True),
    "full_finetune_fsdp2": Recipe("sft", True),
    "lora_finetune_single_device": Recipe("sft", False),
    "lora_finetune_distributed": Recipe("sft", True),
    "lora_finetune_fsdp2": Recipe("sft", True),
    "dev/lora_finetune_distributed_multi_dataset": Recipe("sft", True),
    "dev/early_exit_finetune_distributed": Recipe("sft", True),
    "lora_dpo_single_device": Recipe("dpo", False),
    "lora_dpo_distributed": Recipe("dpo", True),
    "full_dpo_distributed": Recipe("dpo", True),
    "ppo_full_finetune_single_device": Recipe("ppo", False),
    "dev/grpo_full_finetune_distributed": Recipe("grpo", True),
    "dev/async_grpo_full_finetune_distributed": Recipe("grpo", True),
    "qat_single_device": Recipe("sft", False),
    "qat_distributed": Recipe("sft", True),
    "qat_lora_finetune_distributed": Recipe("sft", True),
    "knowledge_distillation_single_device": Recipe("sft", False),
    "knowledge_distillation_distributed": Recipe("sft", True),
}
_TRAIN_NOTHING = frozenset(
    {"generate", "eleuther_eval", "quantize", "dev/generate_v2", "dev/generate_v2_distributed"}
)


def recognises(words: Sequence[str]) -> bool:
    """Whether a command runs a recipe of torchtune."""
    return basename(words[0]) == "tune" and list(words[1:2]) == ["run"]


def parse(words: Sequence[str], version: str | None = None) -> Launch:
    """Read a command that runs a recipe.

    Parameters
    ----------
    words
        The command, split as a shell would.
    version
        Version of torchtune; None for the newest that is known.

    Raises
    ------
    BadInput
        For a recipe or config that torchtune does not have, or a value that it would refuse.
    """
    started = split(words[2:], PROGRAM)
    if not started.rest:
        raise BadInput(f"{PROGRAM}: no recipe is named", "write tune run RECIPE --config CONFIG")
    name, *rest = started.rest
    recipe, notes = _recipe(name)
    values, more = _config(rest, version)
    keys = Keys(PROGRAM, _without_references(values))
    if started.given and not recipe.distributed:
        raise BadInput(
            f"{PROGRAM}: {name} does not support distributed training",
            "leave --nproc_per_node out, or run " + name.replace("single_device", "distributed"),
        )
    model, config = model_of_keys(keys)
    settings, further = settings_of(keys, recipe.objective, recipe.distributed, version)
    unread = [key for key in keys.unread() if keys.values[key] is not False and not QUIET.fullmatch(key)]
    notes += [*more, *further, *(f"{key}: {str(keys.values[key])[:40]} is not counted" for key in unread)]
    return Launch(
        engine="training",
        model=model,
        revision=None,
        settings=settings,
        devices=started.devices if recipe.distributed and started.given else 1,
        notes=tuple(notes),
        config=config,
    )


def _recipe(name: str) -> tuple[Recipe, list[str]]:
    if name in RECIPES:
        return RECIPES[name], []
    if name in _TRAIN_NOTHING:
        raise BadInput(f"{PROGRAM}: {name} trains nothing", f"known: {', '.join(list(RECIPES)[:4])}, ...")
    like = basename(name).removesuffix(".py").rpartition(".")[2]
    if name.endswith(".py") or "." in name or ("/" in name and not name.startswith("dev/")):
        found = RECIPES.get(like)
        what = f"as torchtune's {like}" if found else "as a finetuning on several devices"
        return found or Recipe("sft", True), [f"{name} is a recipe of one's own: read {what}"]
    raise BadInput(f"torchtune has no recipe {name[:60]}", did_you_mean(name, RECIPES))


def _config(words: Sequence[str], version: str | None) -> tuple[dict[str, Any], list[str]]:
    """What a config and the words behind it say together."""
    name, overrides = None, []
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if word == "--config":
            name = words[index] if index < len(words) else ""
            index += 1
        elif word.startswith("--config="):
            raise BadInput(f"{PROGRAM}: --config is looked for as a word of its own", "write --config CONFIG")
        elif word.startswith("--"):
            raise BadInput(f"{PROGRAM}: {word[:60]} is no flag of a recipe", "write key=value")
        else:
            overrides.append(word)
    if not name:
        raise BadInput(
            f"{PROGRAM}: the --config argument is required", "write --config llama3_1/8B_lora_single_device"
        )
    values, notes = _file_or_name(name, version)
    for word in overrides:
        _override(values, word)
    return values, notes


def _file_or_name(name: str, version: str | None) -> tuple[dict[str, Any], list[str]]:
    named = CONFIGS.find(name, version)
    if named is not None:
        notes = [] if named.asked else [f"{name} is read as in torchtune {named.version}, which has it"]
        return dict(Keys(PROGRAM, named.values).values), notes
    found = read_settings(path_of(name))
    if found is not None:
        return dict(Keys(PROGRAM, found).values), []
    if name.endswith((".yaml", ".yml")):
        raise BadInput(
            f"{PROGRAM}: {name} (--config) is not here", "give the path of a file that is, or a config's name"
        )
    raise BadInput(f"torchtune has no config {name[:60]}", did_you_mean(name, CONFIGS.names()))


def _override(values: dict[str, Any], word: str) -> None:
    """Let `key=value` or `~key` change what a config says."""
    if word.startswith("~"):
        gone = word[1:].partition("=")[0]
        inside = [key for key in values if key == gone or key.startswith(gone + ".")]
        if not inside and not QUIET.fullmatch(gone):
            raise BadInput(f"{PROGRAM}: {gone[:60]} is not in the config, so {word[:60]} cannot take it away")
        for key in inside:
            del values[key]
        return
    name, *value = word.split("=")
    if len(value) != 1 or not name:
        raise BadInput(f"{PROGRAM}: {word[:60]!r} is not of the form key=value")
    if f"{name}._component_" in values:
        name = f"{name}._component_"
    values[name] = _read(value[0])


def _read(text: str) -> Any:
    """A value as YAML reads it."""
    import yaml  # type: ignore[import-untyped]

    if text == "None":
        return None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _without_references(values: dict[str, Any]) -> dict[str, Any]:
    """Values with `${other.key}` put in, where a value is one reference as a whole."""
    found = dict(values)
    for key, value in values.items():
        for _ in range(4):
            if not (isinstance(value, str) and value.startswith("${") and value.endswith("}")):
                break
            value = values.get(value[2:-1])
        found[key] = value
    return found
