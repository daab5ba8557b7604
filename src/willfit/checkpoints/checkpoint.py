"""The result of reading a model: its config, its tensors, or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from willfit.checkpoints.config import Config
from willfit.checkpoints.gguf import GgufHeader
from willfit.checkpoints.safetensors import StoredTensor

if TYPE_CHECKING:
    from willfit.checkpoints.reading import Place

Source = Literal["local directory", "local file", "catalogue", "hub", "gguf file", "url"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was read of a model. At least one of `config`, `tensors` and `gguf` is there.

    Attributes
    ----------
    model
        How to call it: a hub id, a path or a URL.
    source
        Where it was read from. A GGUF file is a `gguf file`, wherever it lies.
    config
        Its config.json. A `hf_quant_config.json` or `quantize_config.json` beside it is its section
        `hf_quant_config` or `quantize_config`.
    tensors
        What its safetensors files hold, by their headers; None if these could not be had.
    stored_bytes
        What its tensors take in its files: the sum over `tensors` or the GGUF header, else what the index
        announces; None if neither is known.
    gguf
        Its GGUF header.
    file_type
        The file type of llama.cpp that was asked for, of a checkpoint that is no GGUF file: what is meant is the file
        that would be made of it.
    format_name
        How the weights are stored by the repository's name, where its files could not be read.
    revision
        The commit that was read from a hub.
    embeds
        Sentence-transformers' `modules.json` lies beside it.
    facts
        What the catalogue knows besides the config, such as `params_total`.
    notes
        What a user should know about how it was read.
    place, file
        Where its files lie, for those that are read later, and the GGUF file in it; None for a bundled model.
    """

    model: str
    source: Source
    config: Config | None = None
    tensors: tuple[StoredTensor, ...] | None = field(default=None, repr=False)
    stored_bytes: int | None = None
    gguf: GgufHeader | None = None
    file_type: str = ""
    format_name: str = ""
    revision: str | None = None
    embeds: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    place: Place | None = field(default=None, repr=False, compare=False)
    file: str = ""
