"""Which models a version of SGLang runs (`srt/model_loader/utils.py: get_model_architecture`).

A class that no module of `srt/models/` exports is run with Transformers' modules where these hand attention over.
"""

from __future__ import annotations

from willfit.architectures.model import Architecture
from willfit.engines.base import Subject
from willfit.engines.sglang.model_table import BESIDE, CLASSES, POOLING
from willfit.engines.sglang.settings import Settings
from willfit.engines.support import Support, by_class, through_transformers


def generates(subject: Subject, settings: Settings) -> bool:
    """Whether text is asked for: what classes are for, and what the user says (`is_generation_model`)."""
    architecture = subject.architecture
    pooling = any(POOLING.of(name) for name in architecture.class_names)
    return not (architecture.encoder_only or settings.is_embedding or pooling)


def support(architecture: Architecture, version: str) -> Support:
    """Whether a version runs a model."""
    own = by_class(CLASSES, architecture, version)
    if own.runs is not False:
        return own
    runs = through_transformers(CLASSES, BESIDE, architecture, version)
    return own if runs is False else Support(runs, own.versions, through=bool(runs))
