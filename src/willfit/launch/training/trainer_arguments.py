"""What transformers' `TrainingArguments` say, where another program passes them on.

Names and meanings are those of `transformers/training_args.py`, 4.35 to 5.23 (`data/trainer_arguments_flags.txt`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from willfit.errors import BadInput
from willfit.launch.config_files import read_json_settings
from willfit.launch.training.fsdp_config import of_fsdp, truth
from willfit.launch.training.keys import Keys, path_of
from willfit.launch.training.sharing import Sharing
from willfit.training.settings import CheckpointingSettings, OptimizerSettings

#: Names of optimizers that mean another one (`OptimizerNames`), and how torch runs it.
_SAME: dict[str, tuple[str, str | None]] = {
    "adamw_torch": ("adamw", "foreach"), "adamw_hf": ("adamw", "for-loop"), "adamw_torch_fused": ("adamw", "fused"),
    "adamw_apex_fused": ("adamw", "fused"), "adamw_torch_xla": ("adamw", None), "adamw": ("adamw", None),
    "adamw_torch_npu_fused": ("adamw", "fused"), "adamw_bnb_8bit": ("adamw_8bit", None), "lion": ("lion_32bit", None),
}  # fmt: skip


def optimizer(name: str | None, arguments: Any = None) -> OptimizerSettings:
    """The optimizer that `optim` and `optim_args` ask for.

    Parameters
    ----------
    name
        As the Trainer has it; None for its default.
    arguments
        `optim_args`: `rank=64, update_proj_gap=100`.
    """
    if name is None:
        return OptimizerSettings()
    named, implementation = _SAME.get(name, (name, None))
    options: dict[str, object] = {}
    if isinstance(arguments, str):
        for part in arguments.replace(" ", "").split(","):
            key, equals, value = part.partition("=")
            if equals:
                options[key] = int(value) if value.isdecimal() else value
    elif isinstance(arguments, Mapping):
        options = dict(arguments)
    rank = options.pop("rank", None)
    layerwise = named.endswith("_layerwise")
    return OptimizerSettings(
        named.removesuffix("_layerwise"),
        implementation,
        in_backward=layerwise or named in ("lomo", "adalomo"),
        rank=rank if isinstance(rank, int) else None,
        options=options,
    )


def checkpointing(keys: Keys, default: bool | None = None) -> CheckpointingSettings:
    """What `gradient_checkpointing` and its arguments ask for; since 5.23 also as `activation_checkpointing`.

    Parameters
    ----------
    keys
        What was given.
    default
        Whether it is on if nothing is said; None for the framework's own rule.
    """
    said = [keys.flag(f"{name}_checkpointing") for name in ("activation", "gradient")]
    on = next((one for one in said if one is not None), default)
    inside = mapping(keys, "activation_checkpointing_kwargs") or mapping(
        keys, "gradient_checkpointing_kwargs"
    )
    reentrant = inside.get("use_reentrant")
    reentrant = truth(reentrant) if reentrant is not None else None
    if on is False:
        return CheckpointingSettings("none")
    every = inside.get("every_n_layers")
    return CheckpointingSettings(
        "full" if on else None,
        every=every if isinstance(every, int) and every > 0 else 1,
        reentrant=reentrant,
        offload=truth(inside.get("offload")),
    )


def mapping(keys: Keys, name: str) -> dict[str, Any]:
    """A mapping, which stands in a file as such, on a command line as JSON, or in a JSON file; empty if it is missing.

    Raises
    ------
    BadInput
        If it is none of these.
    """
    inside = keys.under(name)
    value = keys.get(name)
    if value is None or isinstance(value, bool) or value == "":
        return inside
    found: Any = value
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        found = read_json_settings(path_of(value))
        if found is None:
            raise BadInput(
                f"{keys.program}: {value[:80]} ({name}) is not here", "give the path of a JSON file"
            )
    elif isinstance(value, str):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            found = None
    if not isinstance(found, Mapping):
        raise keys.wrong(name, "JSON with names and values")
    return dict(found)


def fsdp(keys: Keys, version: int | None = None) -> Sharing | None:
    """How `fsdp` and `fsdp_config` share the model; None if they do not.

    Parameters
    ----------
    keys
        What was given.
    version
        FSDP 1 or 2, where nothing says.

    Raises
    ------
    BadInput
        For a word that FSDP does not have.
    """
    value = keys.get("fsdp")
    config = {name.removeprefix("fsdp_"): one for name, one in mapping(keys, "fsdp_config").items()}
    words = value.split() if isinstance(value, str) else list(value) if isinstance(value, list) else []
    words = [part for word in words for part in str(word).replace(",", " ").split()]
    if value in ("", False) or [word.lower() for word in words] == ["false"]:
        return None
    if value is None and not config:
        return None
    if (minimum := keys.whole("fsdp_min_num_params", 0)) is not None:
        config.setdefault("min_num_params", minimum)
    return of_fsdp(words, config, keys.program, keys.whole("fsdp_version") or version)
