"""FSDP's settings: the words of the Trainer's `--fsdp`, its `fsdp_config`, and accelerate's `fsdp_config`.

Names are those of accelerate's `FullyShardedDataParallelPlugin`, with `fsdp_` in front or without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from willfit.errors import BadInput
from willfit.launch.training.sharing import Sharing

#: `FSDPOption` (transformers `trainer_utils.py`), and accelerate's numbers and names (`FSDP_SHARDING_STRATEGY`).
_STRATEGIES = {
    "full_shard": "full_shard", "shard_grad_op": "shard_grad_op", "no_shard": "no_shard",
    "hybrid_shard": "hybrid_shard", "hybrid_shard_zero2": "hybrid_shard",
    "1": "full_shard", "2": "shard_grad_op", "3": "no_shard", "4": "hybrid_shard", "5": "hybrid_shard",
}  # fmt: skip

#: Words of `--fsdp` beside strategies.
_WORDS = ("offload", "auto_wrap", "true")

#: Names that this module reads, and those that change nothing of a step: what is loaded and saved how, in which
#: order gathers of the forward pass are issued, and which classes are wrapped (the model's own decoder layers).
_READ = frozenset({
    "version", "sharding_strategy", "reshard_after_forward", "auto_wrap_policy", "min_num_params", "offload_params",
    "cpu_offload", "activation_checkpointing", "activation_cpu_offload", "limit_all_gathers", "backward_prefetch",
    "mixed_precision_policy", "cpu_ram_efficient_loading", "state_dict_type",
})  # fmt: skip
_QUIET = frozenset({
    "transformer_layer_cls_to_wrap", "transformer_cls_names_to_wrap", "backward_prefetch_policy",
    "forward_prefetch", "use_orig_params", "sync_module_states",
    "xla", "xla_fsdp_v2", "xla_fsdp_grad_ckpt", "xla_fsdp_settings", "final_state_dict_type", "param_init_fn",
    "enable_memory_efficient_loading",
})  # fmt: skip

#: `FSDP_AUTO_WRAP_POLICY`.
_POLICIES = {"TRANSFORMER_BASED_WRAP": None, "SIZE_BASED_WRAP": "size", "NO_WRAP": None}


def of_fsdp(
    words: Sequence[str], config: Mapping[str, Any], program: str, version: int | None = None
) -> Sharing:
    """What the words of `fsdp` and the names of `fsdp_config` say.

    Parameters
    ----------
    words
        Of the Trainer's `--fsdp`; none where accelerate is told.
    config
        Values by name, without `fsdp_` in front.
    program
        How to call the program in an error.
    version
        FSDP 1 or 2, where the config does not say.

    Raises
    ------
    BadInput
        For a word, strategy or policy that FSDP does not have.
    """
    for word in words:
        if word.lower() not in (*_STRATEGIES, *_WORDS):
            raise BadInput(
                f"{program}: fsdp has no option {word[:40]}",
                f"known: {', '.join(list(_STRATEGIES)[:5])}, offload, auto_wrap",
            )
    second = _choice(program, "version", config.get("version", version or 1), ("1", "2")) == "2"
    strategy = next((_STRATEGIES[word.lower()] for word in words if word.lower() in _STRATEGIES), None)
    for name in ("sharding_strategy", "reshard_after_forward"):
        # The second name is the newer one: a strategy of FSDP1, true or false of FSDP2.
        said = config.get(name)
        if strategy is None and said not in (None, "") and not _is_boolean(said):
            strategy = _STRATEGIES[_choice(program, name, str(said).lower(), tuple(_STRATEGIES))]
    reshard = config.get("reshard_after_forward")
    policy = str(config.get("auto_wrap_policy") or "TRANSFORMER_BASED_WRAP").upper()
    _choice(program, "auto_wrap_policy", policy, tuple(_POLICIES))
    wrap = _POLICIES[policy]
    if (_number(config.get("min_num_params")) or 0) > 0 and config.get("auto_wrap_policy") is None:
        wrap = "size"
    once, saved = config.get("cpu_ram_efficient_loading"), config.get("state_dict_type")
    layout: dict[str, Any] = {
        "data": "fsdp2" if second else "fsdp1",
        "strategy": strategy,
        "reshard": truth(reshard) if _is_boolean(reshard) else None,
        "wrap": wrap,
        "prefetch": 1 if str(config.get("backward_prefetch")).upper() == "BACKWARD_PRE" else None,
        "loads_once": None if once is None else truth(once),
        "saves_whole": None if saved is None else str(saved).upper() == "FULL_STATE_DICT",
    }
    on_host = "offload" in [word.lower() for word in words] or truth(
        config.get("offload_params", config.get("cpu_offload"))
    )
    notes = []
    if policy == "NO_WRAP":
        notes.append("FSDP gathers the whole model at once (NO_WRAP), which is not counted: blocks are")
    if truth(config.get("limit_all_gathers", True)) is False:
        notes.append("FSDP without limit_all_gathers is counted as with it")
    more = [
        f"fsdp_config's {name}: {str(value)[:40]} is not counted"
        for name, value in config.items()
        if name not in _READ and name not in _QUIET and value not in (None, False, "", "false", {}, [])
    ]
    return Sharing(
        layout,
        {"params": True, "gradients": True, "optimizer": True} if on_host else {},
        _policy(config.get("mixed_precision_policy")),
        (*notes, *more),
        checkpointing=truth(config.get("activation_checkpointing")),
        activation_offload=truth(config.get("activation_cpu_offload")),
    )


def _policy(given: Any) -> dict[str, Any]:
    """Dtypes of `mixed_precision_policy`, where it is a mapping."""
    if not isinstance(given, Mapping):
        return {}
    names = {"param_dtype": "compute", "reduce_dtype": "reduce"}
    return {names[name]: str(value).removeprefix("torch.") for name, value in given.items() if name in names}


def _choice(program: str, name: str, value: Any, choices: tuple[str, ...]) -> str:
    if str(value) not in choices:
        raise BadInput(
            f"{program}: fsdp_config's {name} is {str(value)[:40]!r}", f"known: {', '.join(choices)}"
        )
    return str(value)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _is_boolean(value: Any) -> bool:
    return isinstance(value, bool) or str(value).lower() in ("true", "false")


def truth(value: Any) -> bool:
    """Whether a value of a config is true, as a boolean or as a word."""
    return value is True or str(value).lower() in ("true", "1", "yes")
