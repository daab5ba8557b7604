"""Which models a version of ExLlamaV2 runs (`architecture.py`): by the class that the config names."""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.exllamav2.model_table import CLASSES
from willfit.engines.support import Support, by_class


def support(architecture: Architecture, version: str) -> Support:
    """Whether a version runs a model."""
    return by_class(CLASSES, architecture, version)
