"""What transformers' `TrainingArguments` say, where another program passes them on.

Names and meanings are those of `transformers/training_args.py`, 4.35 to 5.23 (`data/trainer_arguments_flags.txt`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from willfit.errors import BadInput
from willfit.launch.training.keys import Keys
from willfit.launch.training.zero_config import Zero
from willfit.training.settings import CheckpointingSettings, OptimizerSettings

#: Names of optimizers that mean another one (`OptimizerNames`), and how torch runs it.
_SAME: dict[str, tuple[str, str | None]] = {
    "adamw_torch": ("adamw", None), "adamw_hf": ("adamw", "for-loop"), "adamw_torch_fused": ("adamw", "fused"),
    "adamw_apex_fused": ("adamw", "fused"), "adamw_torch_xla": ("adamw", None), "adamw": ("adamw", None),
    "adamw_torch_npu_fused": ("adamw", "fused"), "adamw_bnb_8bit": ("adamw_8bit", None), "lion": ("lion_32bit", None),
}  # fmt: skip

#: `FSDPOption`, and the older names of accelerate's `ShardingStrategy`.
_STRATEGIES = {
    "full_shard": "full_shard", "shard_grad_op": "shard_grad_op", "no_shard": "no_shard",
    "hybrid_shard": "hybrid_shard", "hybrid_shard_zero2": "hybrid_shard",
    "1": "full_shard", "2": "shard_grad_op", "3": "no_shard", "4": "hybrid_shard", "5": "hybrid_shard",
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
    """What `gradient_checkpointing` and its arguments ask for.

    Parameters
    ----------
    keys
        What was given.
    default
        Whether it is on if nothing is said; None for the framework's own rule.
    """
    on = keys.flag("gradient_checkpointing")
    on = default if on is None else on
    inside = mapping(keys, "gradient_checkpointing_kwargs")
    reentrant = inside.get("use_reentrant")
    if on is None:
        return CheckpointingSettings(reentrant=reentrant if isinstance(reentrant, bool) else None)
    if not on:
        return CheckpointingSettings("none")
    return CheckpointingSettings("full", reentrant=reentrant if isinstance(reentrant, bool) else None)


def mapping(keys: Keys, name: str) -> dict[str, Any]:
    """A mapping, which stands in a file as such or on a command line as JSON; empty if it is missing.

    Raises
    ------
    BadInput
        If it is neither.
    """
    inside = keys.under(name)
    value = keys.get(name)
    if value is None or isinstance(value, bool):
        return inside
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, Mapping):
        raise keys.wrong(name, "JSON with names and values")
    return dict(found)


def fsdp(keys: Keys) -> Zero | None:
    """How `fsdp` and `fsdp_config` share the model; None if they do not.

    Raises
    ------
    BadInput
        For a word that FSDP does not have.
    """
    value = keys.get("fsdp")
    config = {name.removeprefix("fsdp_"): one for name, one in mapping(keys, "fsdp_config").items()}
    words = value.split() if isinstance(value, str) else list(value) if isinstance(value, list) else []
    words = [part for word in words for part in str(word).replace(",", " ").split()]
    if not words and value is not True and not (config and value is not False):
        return None
    if value in ("", "false", "False"):
        return None
    return of_fsdp(words, config, keys.program, keys.whole("fsdp_version"))


def of_fsdp(words: list[str], config: Mapping[str, Any], program: str, version: int | None = None) -> Zero:
    """What words of `fsdp` and names of `fsdp_config`, without `fsdp_` in front, say."""
    known = (*_STRATEGIES, "offload", "auto_wrap", "true")
    for word in words:
        if word.lower() not in known:
            raise BadInput(
                f"{program}: fsdp has no option {word[:40]}",
                f"known: {', '.join(known[:5])}, offload, auto_wrap",
            )
    second = str(config.get("version", version or 1)) == "2"
    named = str(config.get("sharding_strategy", "")).lower()
    strategy = next((_STRATEGIES[word.lower()] for word in words if word.lower() in _STRATEGIES), None)
    strategy = strategy or _STRATEGIES.get(named)
    reshard = config.get("reshard_after_forward")
    if not isinstance(reshard, bool):
        # With the first version it is a strategy's name.
        strategy = strategy or _STRATEGIES.get(str(reshard).lower())
        reshard = None
    wrap = str(config.get("auto_wrap_policy", "")).upper()
    layout: dict[str, Any] = {
        "data": "fsdp2" if second else "fsdp1",
        "strategy": strategy,
        "reshard": reshard,
        "wrap": "size" if wrap == "SIZE_BASED_WRAP" else None,
    }
    on_host = "offload" in [word.lower() for word in words] or truth(
        config.get("offload_params", config.get("cpu_offload"))
    )
    offload = {"params": True, "gradients": True, "optimizer": True} if on_host else {}
    notes = []
    if truth(config.get("limit_all_gathers", True)) is False:
        notes.append("FSDP without limit_all_gathers is counted as with it")
    precision: dict[str, Any] = {}
    if truth(config.get("activation_checkpointing")):
        precision["checkpointing"] = True
    return Zero(layout, offload, precision, tuple(notes))


def truth(value: Any) -> bool:
    """Whether a value of a config is true, as a boolean or as a word."""
    return value is True or str(value).lower() in ("true", "1", "yes")
