"""Which models a version of mlx-lm runs (`utils.py: _get_classes`): by the config's type alone."""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.mlx.model_table import TYPES
from willfit.engines.support import Support, by_type


def support(architecture: Architecture, version: str) -> Support:
    """Whether a version runs a model."""
    return by_type(TYPES, architecture, version)
