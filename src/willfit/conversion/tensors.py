"""All tensors of the file that llama.cpp's converter writes for a model."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.model import Architecture
from willfit.checkpoints.config import Config
from willfit.conversion.extras import extra_tensors, layer_extras
from willfit.conversion.kept import scales
from willfit.conversion.layers import Kept, Written, written
from willfit.conversion.record import Entry

#: What leaves out a head that is stored although it is the table; elsewhere it is written as any tensor.
_LEAVES_TIED = frozenset(
    {"deepseek2", "gemma", "gemma2", "glm5-next", "hunyuan-dense", "hunyuan-moe", "pangu-embedded"}
)


def file_tensors(
    config: Config,
    architecture: Architecture,
    name: str,
    *,
    drafts: bool = True,
    stored_head: bool = False,
    kept: Kept | None = None,
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
    stored_head
        The checkpoint stores a head, even if it is the same as the token table.
    kept
        What keeps the type that it has in the checkpoint.
    """
    made = written(architecture, name, config, drafts, kept)
    extended: dict[int, tuple[Entry, ...]] = {}
    stacks = {}
    for prefix, layers in made.stacks.items():
        for layer in layers:
            if id(layer) not in extended:
                extended[id(layer)] = (*layer, *layer_extras(name, config, layer), *scales(layer))
        stacks[prefix] = tuple(extended[id(layer)] for layer in layers)
    outside = (*extra_tensors(name, config, architecture), *made.outside)
    table = next((entry for entry in outside if entry.name == "token_embd.weight"), None)
    if stored_head and architecture.tied and table is not None and name not in _LEAVES_TIED:
        outside = (*outside, table._replace(name="output.weight"))
    return replace(made, outside=outside, stacks=stacks)
