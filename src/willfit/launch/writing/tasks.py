"""Which script trains for an objective, and what it does by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from willfit.errors import BadInput
from willfit.launch.training.trl_settings import LONGER_COMPLETION as COMPLETION
from willfit.launch.training.trl_settings import PROMPT
from willfit.training.settings import (
    RolloutSettings,
    TrainingSettings,
)


class Task(NamedTuple):
    """A script that trains for an objective.

    Attributes
    ----------
    framework
        Whose it is: `trl`, or `transformers`.
    script
        A module of TRL's, or a file of transformers' examples.
    data
        A data set of the Hub that it takes, to be replaced by one's own.
    length
        The argument with the longest sequence; empty where a prompt and an answer make it.
    since
        First version that has the script with these arguments.
    """

    framework: str
    script: str
    data: str
    length: str
    since: tuple[int, ...] = (0,)


TASKS: dict[str, Task] = {
    "sft": Task("trl", "trl.scripts.sft", "trl-lib/Capybara", "--max_length", (0, 16)),
    "dpo": Task("trl", "trl.scripts.dpo", "trl-lib/ultrafeedback_binarized", "--max_length", (0, 14)),
    "kto": Task("trl", "trl.scripts.kto", "trl-lib/kto-mix-14k", "--max_length", (0, 14)),
    "reward": Task("trl", "trl.scripts.reward", "trl-lib/ultrafeedback_binarized", "--max_length", (0, 24)),
    "grpo": Task("trl", "trl.scripts.grpo", "trl-lib/DeepMath-103K", "", (0, 19)),
    "pretrain": Task("transformers", "run_clm.py", "Salesforce/wikitext", "--block_size"),
}


def task_of(objective: str) -> Task:
    """The script of an objective.

    Raises
    ------
    BadInput
        If there is none whose command is written.
    """
    if objective not in TASKS:
        raise BadInput(f"no command is written for --objective {objective}", f"known: {', '.join(TASKS)}")
    return TASKS[objective]


def settled(settings: TrainingSettings) -> TrainingSettings:
    """The settings with what the script of the objective does by itself."""
    task = task_of(settings.objective)
    packed = settings.packed or task.script == "run_clm.py"
    found = replace(settings, framework=task.framework, packed=packed)
    return _with_answers(found) if settings.objective == "grpo" else found


def _with_answers(settings: TrainingSettings) -> TrainingSettings:
    """GRPO's sequences: a prompt of the length that is assumed where nothing says it, and an answer.

    Raises
    ------
    BadInput
        If no room is left for an answer.
    """
    rollout = settings.rollout or RolloutSettings(engine="transformers")
    answer = rollout.completion_len or (settings.seq_len - PROMPT if settings.seq_len else COMPLETION)
    if answer < 1:
        raise BadInput(
            f"--seq-len {settings.seq_len} has no room for an answer behind a prompt of {PROMPT} tokens",
            f"take more than {PROMPT}",
        )
    return replace(
        settings, seq_len=PROMPT + answer, rollout=replace(rollout, prompt_len=None, completion_len=answer)
    )
