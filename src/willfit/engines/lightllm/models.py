"""Which models a version of LightLLM runs (`models/registry.py`)."""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.lightllm.eras import has_model
from willfit.engines.support import Support


def support(architecture: Architecture, version: str) -> Support:
    """Whether a version runs a model."""
    return Support(has_model(architecture.model_type, version))
