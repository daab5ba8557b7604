"""All tensors of the file that llama.cpp's converter writes for a model."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config
from willfit.conversion.extras import extra_tensors, layer_extras
from willfit.conversion.layers import Kept, Written, written
from willfit.conversion.record import Entry


def file_tensors(
    config: Config, architecture: Architecture, name: str, drafts: bool = True, kept: Kept | None = None
) -> Written:
    """What the converter writes for a model, tensors that it makes itself included.

    Parameters
    ----------
    config
        The language model's config.
    architecture
        The model.
    name
        llama.cpp's name of its architecture.
    drafts
        Whether the modules that draft are written, too.
    kept
        What keeps the type that it has in the checkpoint.
    """
    made = written(architecture, name, config, drafts, kept)
    extended: dict[int, tuple[Entry, ...]] = {}
    stacks = {}
    for prefix, layers in made.stacks.items():
        for layer in layers:
            if id(layer) not in extended:
                extended[id(layer)] = (*layer, *layer_extras(name, config, layer))
        stacks[prefix] = tuple(extended[id(layer)] for layer in layers)
    return replace(made, outside=(*extra_tensors(name, config, architecture), *made.outside), stacks=stacks)
