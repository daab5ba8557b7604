"""From a checkpoint to what an engine is asked about: architecture, recipe and stored tensors."""

from __future__ import annotations

from willfit.architectures.build import build
from willfit.checkpoints.config import Config
from willfit.engines.base import Subject
from willfit.formats.recognise import recipe_for, recipe_named
from willfit.formats.weights import weight_lines


def subject_from_config(model: str, config: Config, format_name: str | None = None) -> Subject:
    """The subject that a config describes.

    Parameters
    ----------
    model
        How to call it.
    config
        Its config.json.
    format_name
        How the weights shall be stored, if not as the config says (`fp8`, `awq`, `nf4`, ...).

    Raises
    ------
    BadInput
        If the config lacks a field, or the format is not known.
    """
    architecture = build(config)
    dtype = architecture.dtype
    recipe = recipe_for(config, dtype) if format_name is None else recipe_named(format_name, dtype)
    return Subject(model, architecture, recipe, weight_lines(architecture, recipe), notes=architecture.notes)
