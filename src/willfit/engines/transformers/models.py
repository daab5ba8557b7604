"""Which models a version of transformers has classes for; others run with code that comes with the checkpoint."""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.support import Support, by_type
from willfit.engines.transformers.model_table import TYPES


def support(architecture: Architecture, version: str) -> Support:
    """Whether a version runs a model; never refused, because its own code may be there."""
    found = by_type(TYPES, architecture, version)
    return found if found.runs else Support(None, found.versions)
