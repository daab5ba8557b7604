"""Unsloth's operations (read in 2024.8 to 2026.1), and those that fms-acceleration took from it and changed (foak 0.4).

Each is an autograd function that allocates, keeps and overwrites what the original does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from willfit.tracing.worker.stand_ins.unsloth import models
from willfit.training.settings import TrainingSettings

#: What the word `foak` stands for.
FOAK = ("rms_norm", "rope", "foak_lora")


def apply(model: Any, kernels: Collection[str], settings: TrainingSettings) -> None:
    """Put Unsloth's kernels, or foak's, into a model that has its adapters.

    Raises
    ------
    BadInput
        See `models.apply`.
    """
    version = settings.version if settings.framework == "unsloth" else settings.versions.get("unsloth")
    models.apply(model, kernels, "foak_lora" in kernels, version, bool(settings.precision.autocast))
