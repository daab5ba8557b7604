"""What optimizers keep between steps and need while they step."""

from willfit.training.optimizers.clipping import clip_norm
from willfit.training.optimizers.defaults import default_optimizer
from willfit.training.optimizers.memory import optimizer_memory
from willfit.training.optimizers.records import OptimizerMemory, StateBytes, Transient
from willfit.training.optimizers.table import NAMES

__all__ = [
    "NAMES",
    "OptimizerMemory",
    "StateBytes",
    "Transient",
    "clip_norm",
    "default_optimizer",
    "optimizer_memory",
]
