"""What an objective holds beside the model that is trained: other models, more sequences, scores instead of logits."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.training.run import Run
from willfit.training.settings import TrainingSettings

#: Objectives that compare a chosen with a rejected sequence, in one batch (TRL `dpo_trainer.py`, `reward_trainer.py`).
_PAIRED = ("dpo", "orpo", "simpo", "reward")

#: Objectives whose loss compares with what the model was before (TRL: no copy where an adapter can be turned off, nor
#: where GRPO's `beta` is 0, its default).
_REFERENCED = ("dpo", "kto", "ppo")


@dataclass(frozen=True, slots=True)
class Companion:
    """Another model that a step needs.

    Attributes
    ----------
    name
        `reference_model`, `reward_model` or `value_model`.
    trained
        It is trained as well, with gradients and states of its own.
    """

    name: str
    trained: bool = False


def sequences(objective: str) -> int:
    """Sequences that each sample of a batch stands for."""
    return 2 if objective in _PAIRED else 1


def scores(settings: TrainingSettings) -> int:
    """Outputs of a head that scores whole sequences; 0 where the vocabulary is scored."""
    if settings.objective == "reward":
        return 1
    return settings.classes if settings.objective == "classification" else 0


def companions(run: Run) -> tuple[Companion, ...]:
    """The models beside the trained one."""
    settings = run.settings
    found = []
    if _has_reference(settings):
        found.append(Companion("reference_model"))
    if settings.objective == "ppo":
        found += [Companion("reward_model"), Companion("value_model", trained=True)]
    return tuple(found)


def _has_reference(settings: TrainingSettings) -> bool:
    if settings.reference_model is not None:
        return settings.reference_model
    if settings.objective not in _REFERENCED or settings.precompute_reference:
        return False
    return settings.adapter is None
