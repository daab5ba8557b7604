"""Which models a version of ExLlamaV3 runs (`architecture/`): by the class that the config names."""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.exllamav3.model_table import CLASSES, RINGS
from willfit.engines.support import Support, by_class


def support(architecture: Architecture, version: str) -> Support:
    """Whether a version runs a model."""
    return by_class(CLASSES, architecture, version)


def has_rings(architecture: Architecture, version: str) -> bool:
    """Whether a version's module of a model keeps rings in layers with a window."""
    return any(RINGS.has(name, version) for name in architecture.class_names)
