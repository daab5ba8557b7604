"""LM Studio: llama.cpp or MLX with settings of its own, by version."""

from willfit.engines.lmstudio.eras import NEWEST
from willfit.engines.lmstudio.estimate import NAME, answer, estimate
from willfit.engines.lmstudio.settings import Settings

__all__ = ["NAME", "NEWEST", "Settings", "answer", "estimate"]
