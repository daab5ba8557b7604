"""Which models a version of LMDeploy runs: TurboMind's, or those that its PyTorch engine has a module for."""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.lmdeploy.model_table import CLASSES
from willfit.engines.lmdeploy.settings import has_turbomind
from willfit.engines.support import YES, Support, by_class


def support(architecture: Architecture, version: str) -> Support:
    """Whether a version runs a model with either of its engines."""
    return YES if has_turbomind(architecture, version) else by_class(CLASSES, architecture, version)
