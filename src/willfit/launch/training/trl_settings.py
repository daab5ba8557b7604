"""What TRL's trainers hold beside the model: references, rollouts, sequences of a prompt and a completion."""

from __future__ import annotations

from typing import NamedTuple

from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.launch.training.hf_values import first_whole
from willfit.launch.training.keys import Keys
from willfit.training.frameworks.trl import NEWEST
from willfit.training.settings import RolloutSettings

#: Trainers by name, and the objective that each is counted as.
OBJECTIVES = {
    "sft": "sft", "dpo": "dpo", "kto": "kto", "orpo": "orpo", "cpo": "orpo", "grpo": "grpo", "rloo": "grpo",
    "reward": "reward", "ppo": "ppo", "bco": "kto", "gkd": "sft", "distillation": "sft", "online_dpo": "dpo",
    "nash_md": "dpo", "xpo": "dpo", "prm": "sft",
}  # fmt: skip

#: What is said of trainers that are counted as another one.
_COUNTED_AS = {
    "cpo": "CPO is counted as ORPO", "rloo": "RLOO is counted as GRPO", "bco": "BCO is counted as KTO",
    "gkd": "GKD is counted as SFT, without its teacher", "prm": "the head that scores steps is not counted",
    "distillation": "distillation is counted as SFT, without its teacher",
    "online_dpo": "online DPO is counted as DPO, without its judge or reward model",
    "nash_md": "Nash-MD is counted as DPO, without its judge or reward model",
    "xpo": "XPO is counted as DPO, without its judge or reward model",
}  # fmt: skip

#: Trainers that generate, and the completions of a prompt.
_GENERATING = {"grpo": 8, "rloo": 2, "online_dpo": 2, "nash_md": 2, "xpo": 2, "ppo": 1, "gkd": 1}

#: Tokens of prompts and completions if nothing is said (`grpo_config.py`): prompts are cut up to 1.6.
PROMPT, _COMPLETION, LONGER_COMPLETION = 512, 256, 512
_LONGER_SINCE = (1, 16)

#: GRPO's `beta` is 0 if nothing is said since this version.
_NO_BETA_SINCE = (0, 19)

#: vLLM runs on the trainer's cards if nothing is said since 1.0; before, in a server of its own.
_COLOCATED_SINCE = (1, 0)


class Objective(NamedTuple):
    """What a trainer trains for.

    Attributes
    ----------
    name
        One of `training.settings.OBJECTIVES`.
    seq_len
        Tokens of the longest sequence; None if nothing is said.
    rollout
        What generates; None where nothing does.
    reference
        Whether there is a second copy of the model; None for the framework's rule.
    precomputed
        The reference's log probabilities are computed before.
    notes
        What is counted as something else.
    """

    name: str
    seq_len: int | None
    rollout: RolloutSettings | None = None
    reference: bool | None = None
    precomputed: bool = False
    notes: tuple[str, ...] = ()


def objective_of(keys: Keys, trainer: str, version: str | None, adapted: bool) -> Objective:
    """What a trainer's arguments ask for.

    Parameters
    ----------
    keys
        What was given.
    trainer
        Its name: `sft`, `dpo`, `grpo`, ...
    version
        TRL's; None for the newest.
    adapted
        The model has an adapter, without which it is the reference.

    Raises
    ------
    BadInput
        For a value that the trainer would refuse.
    """
    name = OBJECTIVES[trainer]
    notes = [_COUNTED_AS[trainer]] if trainer in _COUNTED_AS else []
    losses = keys.words("loss_type")
    if trainer == "cpo" and "simpo" in losses:
        name, notes = "simpo", []
    if name == "dpo" and keys.flag("reference_free"):
        notes.append("reference_free does not drop the reference model")
    rollout = _rollout(keys, trainer, version) if trainer in _GENERATING else None
    length = first_whole(
        keys, ("max_length", "max_seq_length", "seq_length", "model_max_length", "block_size")
    )
    if rollout is not None and length is None and name in ("grpo", "ppo"):
        prompt, completion = rollout.prompt_len, rollout.completion_len
        length = (prompt or PROMPT) + completion if completion else None
        if prompt is None and completion:
            notes.append(f"prompts of {PROMPT} tokens are assumed")
    reward = keys.word("reward_model_path") or keys.word("reward_model")
    if trainer == "ppo" and reward not in (None, keys.get("model_name_or_path"), keys.get("sft_model_path")):
        notes.append(f"{str(reward)[:60]} (the reward model) is counted as large as the model")
    keys.see("max_prompt_length", "max_completion_length", "max_target_length")
    return Objective(
        name,
        length,
        rollout,
        _reference(keys, trainer, version, adapted),
        bool(keys.flag("precompute_ref_log_probs")),
        tuple(notes),
    )


def _reference(keys: Keys, trainer: str, version: str | None, adapted: bool) -> bool | None:
    """Whether a second copy is held: of GRPO where its `beta` is not 0, and there is no adapter to turn off."""
    if keys.flag("force_use_ref_model"):
        return True
    if trainer not in ("grpo", "rloo"):
        keys.see("beta")
        return None
    betas = keys.words("beta") if not isinstance(keys.get("beta"), int | float) else (str(keys.get("beta")),)
    if not betas:
        # RLOO's is 0.05 by default, GRPO's was 0.04 up to 0.18 and is 0.
        held = trainer == "rloo" or parse_version(version or NEWEST) < _NO_BETA_SINCE
        return (True if held else None) if not adapted else None
    try:
        return any(float(beta) for beta in betas) and not adapted
    except ValueError:
        raise keys.wrong("beta", "a number") from None


def _rollout(keys: Keys, trainer: str, version: str | None) -> RolloutSettings:
    asked = parse_version(version or NEWEST)
    keys.see(
        "vllm_model_impl", "vllm_dtype", "cache_implementation", "use_transformers_paged", "generation_batch_size",
        "steps_per_generation", "num_mini_batches", "local_rollout_forward_batch_size", "temperature",
    )  # fmt: skip
    completions = first_whole(keys, ("num_generations", "rloo_k")) or _GENERATING[trainer]
    completion = first_whole(keys, ("max_completion_length", "max_new_tokens", "response_length"))
    if completion is None and trainer in ("grpo", "rloo"):
        completion = LONGER_COMPLETION if asked >= _LONGER_SINCE else _COMPLETION
    if keys.get("vllm_max_model_length") is not None or keys.get("vllm_max_model_len") is not None:
        keys.see("vllm_max_model_length", "vllm_max_model_len")
    mode = keys.word("vllm_mode", ("server", "colocate"))
    share = first_share(keys)
    tp = keys.whole("vllm_tensor_parallel_size") or 1
    asleep = bool(keys.flag("vllm_enable_sleep_mode"))
    keys.see("vllm_device")
    prompt = keys.whole("max_prompt_length")
    if not keys.flag("use_vllm"):
        return RolloutSettings(
            engine="transformers", generations=completions, prompt_len=prompt, completion_len=completion
        )
    colocated = mode == "colocate" if mode else asked >= _COLOCATED_SINCE
    return RolloutSettings(
        engine="vllm",
        colocated=colocated,
        memory_utilization=share,
        tp=tp,
        # `generation/vllm_generation.py` drops the weights while the trainer works.
        sleep_level=2 if asleep else 0,
        generations=completions,
        prompt_len=prompt,
        completion_len=completion,
    )


def first_share(keys: Keys) -> float | None:
    """vLLM's share of a card.

    Raises
    ------
    BadInput
        If it is no share.
    """
    for name in ("vllm_gpu_memory_utilization", "gpu_memory_utilization"):
        share = keys.number(name)
        if share is not None:
            if not 0 < share <= 1:
                raise BadInput(f"{keys.program}: {name} is {share:g}, expected a share above 0 and at most 1")
            return share
    return None
