"""The launcher's settings, and what it makes of those that the user leaves open (`launcher/src/main.rs`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture
from willfit.engines.tgi.eras import NEWEST, Era
from willfit.hardware.device import Device

Kernels = Literal["flashinfer", "flashdecoding", "paged"]

#: Tokens in a block of the cache (`models/globals.py`).
BLOCKS: dict[Kernels, int] = {"flashinfer": 1, "flashdecoding": 256, "paged": 16}

#: Widths of heads that flashinfer has kernels for, and models that it is not used for all the same.
_WIDTHS = (64, 128, 256)
_NOT_FLASHINFER = frozenset({"falcon", "deepseek_v2"})

#: Batch sizes with a CUDA graph; methods that have none.
GRAPHS = (1, 2, 4, 8, 16, 32)
_NO_GRAPHS = frozenset({"bitsandbytes", "exl2"})

#: Without a longest sequence, versions from 2.0 to 3.0 (2.4.1 for prompts) take this or the model's limit.
_OLD_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings under the launcher's own names; None leaves the choice to it.

    Attributes
    ----------
    version
        Version of TGI.
    attention, wiggle_room
        `ATTENTION` and `TGI_WIGGLE_ROOM`, which are environment variables only.
    quantize
        Method that is asked for; what is loaded is the subject's.
    """

    version: str = NEWEST
    num_shard: int = 1
    quantize: str | None = None
    kv_cache_dtype: str | None = None
    max_input_tokens: int | None = None
    max_total_tokens: int | None = None
    max_batch_prefill_tokens: int | None = None
    cuda_memory_fraction: float = 1.0
    cuda_graphs: tuple[int, ...] | None = None
    speculate: int = 0
    attention: Kernels | None = None
    wiggle_room: float | None = None


def kernels(settings: Settings, architecture: Architecture, device: Device, era: Era) -> Kernels:
    """Which attention runs (`resolve_attention`): it decides the size of a block."""
    if settings.attention is not None:
        return settings.attention
    if era.attention == "paged" or device.vendor == "AMD":
        return "paged"
    heads = (
        mixer.head_dim
        for layer in architecture.layers
        for mixer in layer.mixers
        if isinstance(mixer, Attention)
    )
    if next(heads, 0) in _WIDTHS and architecture.model_type not in _NOT_FLASHINFER:
        return "flashinfer"
    major = device.compute_capability.split(".")[0]
    return "paged" if major.isdigit() and int(major) < 8 else "flashdecoding"


def graph_sizes(settings: Settings, era: Era) -> tuple[int, ...]:
    """Batch sizes with a CUDA graph."""
    sizes = settings.cuda_graphs
    if sizes is None:
        sizes = GRAPHS if era.graphs and settings.quantize not in _NO_GRAPHS else ()
    return tuple(size for size in sizes if size > settings.speculate)


def prompt_length(settings: Settings, architecture: Architecture, era: Era) -> int | None:
    """The longest prompt; None where the launcher leaves it open until it knows the cache."""
    prompt = settings.max_input_tokens or era.prompt
    if prompt is not None or era.prefill != "prompt":
        return prompt
    length = default_length(settings, architecture, era)
    return length - 1 if length else None


def default_length(settings: Settings, architecture: Architecture, era: Era) -> int | None:
    """The longest sequence that versions before 3.0 settle before they know the cache; None if they do not."""
    length = settings.max_total_tokens or era.length
    if length is not None or era.prefill != "prompt":
        return length
    return min(architecture.max_positions or _OLD_LENGTH, _OLD_LENGTH)
