"""ExLlamaV3's settings under tabbyAPI's names, and what tabbyAPI and the library make of those left open."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from willfit.architectures.mixers import Attention, CompressedAttention
from willfit.architectures.model import Architecture
from willfit.engines.exllamav3.eras import NEWEST, Era, era_for
from willfit.engines.exllamav3.models import has_rings
from willfit.errors import BadInput
from willfit.quantities import at_least, round_up

#: Tokens of a page, of which a cache has whole ones (`constants.py`).
PAGE = 256

#: Length of a sequence where neither the user nor the config says one (tabbyAPI `backends/exllamav3/model.py`).
_FALLBACK_LENGTH = 8192

#: Sequences at once of models with recurrent or rotating layers, and of others (the same file).
_FEW, _MANY = 4, 128

#: Tokens that a draft model proposes unless it says otherwise.
_DRAFTED = 4

_NAMED_MODES = {"Q4": (4, 4), "Q6": (6, 6), "Q8": (8, 8)}
_PAIR = re.compile(r"([2-8])\s*,\s*([2-8])")

Drafting = Literal["disabled", "model", "mtp", "ngram"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a model under the names of tabbyAPI's config; None leaves the choice to it.

    Attributes
    ----------
    max_seq_len, cache_size
        Tokens of the longest sequence, and of all that the cache holds.
    cache_mode, draft_cache_mode
        `FP16`, `Q4`, `Q6`, `Q8`, or bits of keys and values as `8,4`.
    chunk_size
        Tokens of a prompt that are computed at once.
    max_batch_size
        Sequences at once, for each of which recurrent layers and rings have a place.
    gpu_split
        GiB of each card to use, instead of all that is free.
    autosplit_reserve
        MiB of each card to leave free.
    cpu_moe_offload_layers
        Layers whose routed experts run on the processor, from the first on.
    vision
        Whether an encoder of images is loaded.
    draft_mode, draft_num_tokens
        What drafts, and how many tokens.
    sysmem_kv_cache, sysmem_recurrent_cache
        MiB of RAM for pages and for recurrent states.
    swa_full
        Layers with a window keep all tokens.
    """

    version: str = NEWEST
    max_seq_len: int | None = None
    cache_size: int | None = None
    cache_mode: str = "FP16"
    chunk_size: int = 2048
    max_batch_size: int | None = None
    tensor_parallel: bool = False
    gpu_split: tuple[float, ...] | None = None
    autosplit_reserve: tuple[float, ...] = (96,)
    cpu_moe_offload_layers: int = 0
    vision: bool = False
    draft_mode: Drafting = "disabled"
    draft_cache_mode: str = "FP16"
    draft_num_tokens: int | None = None
    sysmem_kv_cache: int = 0
    sysmem_recurrent_cache: int = 4096
    swa_full: bool = False

    @property
    def era(self) -> Era:
        """The era of the version."""
        return era_for(self.version)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What is decided before anything is loaded.

    Attributes
    ----------
    length, tokens
        Tokens of the longest sequence, and of the cache, in whole pages.
    chunk
        Tokens of a prompt at once.
    sequences
        Places for recurrent states and rings.
    drafted
        Tokens that are proposed at once.
    bits, draft_bits
        Of keys and values; None for 16 bits.
    rings
        Whether layers with a window keep a ring for each sequence.
    """

    length: int
    tokens: int
    chunk: int
    sequences: int
    drafted: int
    bits: tuple[int, int] | None
    draft_bits: tuple[int, int] | None
    rings: bool


def cache_bits(mode: str) -> tuple[int, int] | None:
    """Bits of keys and values of a cache mode; None for 16 bits.

    Raises
    ------
    BadInput
        If there is no such mode.
    """
    if mode.upper() == "FP16":
        return None
    if mode.upper() in _NAMED_MODES:
        return _NAMED_MODES[mode.upper()]
    found = _PAIR.fullmatch(mode.strip())
    if found is None:
        raise BadInput(f"unknown cache mode {mode!r}", "known: FP16, Q4, Q6, Q8, or bits such as 8,4")
    return int(found[1]), int(found[2])


def resolve(settings: Settings, architecture: Architecture) -> Resolved:
    """Fill in defaults as tabbyAPI does (`backends/exllamav3/model.py`)."""
    length = settings.max_seq_len or architecture.max_positions or _FALLBACK_LENGTH
    tokens = round_up(settings.cache_size or length, PAGE)
    rings = settings.era.rings and not settings.swa_full and has_rings(architecture, settings.version)
    keeps_places = rings or any(
        mixer.fixed_states or isinstance(mixer, CompressedAttention)
        for layer, _ in architecture.blocks
        for mixer in layer.mixers
    )
    drafted = 0 if settings.draft_mode == "disabled" else _DRAFTED
    return Resolved(
        length=min(length, tokens),
        tokens=tokens,
        chunk=round_up(at_least(settings.chunk_size, PAGE), PAGE),
        sequences=settings.max_batch_size or (_FEW if keeps_places else _MANY),
        drafted=drafted if settings.draft_num_tokens is None else settings.draft_num_tokens,
        bits=cache_bits(settings.cache_mode),
        draft_bits=cache_bits(settings.draft_cache_mode),
        rings=rings,
    )


def has_windows(architecture: Architecture) -> bool:
    """Whether layers look back on a window."""
    mixers = (mixer for layer, _ in architecture.blocks for mixer in layer.mixers)
    return any(isinstance(mixer, Attention) and mixer.window for mixer in mixers)
