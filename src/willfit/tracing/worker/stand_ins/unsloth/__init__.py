"""Unsloth's operations (read in 2024.8 to 2026.1), and those that fms-acceleration took from it and changed (foak 0.4).

Each is an autograd function that allocates, keeps and overwrites what the original does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from willfit.engines.versions import parse_version
from willfit.tracing.worker.stand_ins.unsloth import checkpoints, models
from willfit.training.settings import TrainingSettings

#: What the word `foak` stands for.
FOAK = ("rms_norm", "rope", "foak_lora")


def apply(model: Any, kernels: Collection[str], settings: TrainingSettings) -> None:
    """Put Unsloth's kernels, or foak's, into a model that has its adapters, and Unsloth's checkpoints under Unsloth.

    Raises
    ------
    BadInput
        See `models.apply`.
    """
    own = settings.framework == "unsloth"
    named = settings.version if own else settings.versions.get("unsloth")
    version = parse_version(named) if named else None
    models.apply(model, kernels, "foak_lora" in kernels, version, bool(settings.precision.autocast))
    if own and settings.checkpointing.offload:
        checkpoints.install(model, version)
