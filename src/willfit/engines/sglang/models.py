"""Which models a version of SGLang runs (`srt/model_loader/utils.py: get_model_architecture`).

A class that no module of `srt/models/` exports is run with Transformers' modules where these hand attention over.
"""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.sglang.model_table import CLASSES
from willfit.engines.support import Support, by_class, through_transformers


def support(architecture: Architecture, version: str) -> Support:
    """Whether a version runs a model."""
    own = by_class(CLASSES, architecture, version)
    if own.runs is not False:
        return own
    runs = through_transformers(CLASSES, architecture, version)
    return own if runs is False else Support(runs, own.versions, through=bool(runs))
