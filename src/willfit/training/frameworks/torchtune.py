"""torchtune: its own model code, 16-bit training throughout, and PyTorch's fused optimizer."""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.training.frameworks.base import Defaults, fill
from willfit.training.run import Habits, Run
from willfit.training.settings import PrecisionSettings, TrainingSettings

_PRECISION = PrecisionSettings(weights="bf16", compute="bf16", autocast=False, master="none")


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what torchtune's recipes and configs do (`recipes/configs`)."""
    defaults = Defaults(
        _PRECISION,
        implementation="fused",
        loss="chunked",
        adapter_dtype="bf16",
        reentrant=False,
    )
    return fill(settings, defaults, Habits(repeats_keys=True, upcasts_logits=True))
