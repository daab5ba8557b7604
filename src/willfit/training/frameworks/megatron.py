"""Megatron-LM and what stands on it: fused layers, flat gradient buffers in float32, a sharded optimizer."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.training.frameworks.base import Defaults, fill
from willfit.training.precision import RECIPES
from willfit.training.run import Habits, Run
from willfit.training.settings import TrainingSettings


def resolve(settings: TrainingSettings, architecture: Architecture) -> Run:
    """Fill in what Megatron-LM does (`megatron/training/arguments.py`)."""
    defaults = Defaults(
        RECIPES["megatron-bf16"],
        implementation="fused",
        loss="vocab-parallel",
        attention="flash_attention_2",
        kernels=("rms_norm", "rope", "swiglu"),
        padded=False,
        reentrant=True,
    )
    if settings.layout.bucket_view is None:
        settings = replace(settings, layout=replace(settings.layout, bucket_view=True))
    return fill(settings, defaults, Habits(gradient_buffers=True, regathers=True))
