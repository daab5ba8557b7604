"""ExLlamaV2's settings under tabbyAPI's names, and what tabbyAPI makes of those left open."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from willfit.architectures.mixers import Attention
from willfit.architectures.model import Architecture
from willfit.engines.exllamav2.eras import NEWEST, Era, era_for
from willfit.quantities import round_up

#: Tokens of a page (`generator/dynamic.py`).
PAGE = 256

#: tabbyAPI's length of a cache where none is asked for (`backends/exllamav2/model.py`).
_FALLBACK_LENGTH = 4096

#: Elements of a cache that are quantized at once, and those that share a scale (`cache.py`).
_BLOCK, _GROUP, _SCALE = 512, 32, 2

#: Bytes of 32 keys and of 32 values in each mode, without scales.
MODES: dict[str, tuple[int, int]] = {
    "FP16": (64, 64), "FP8": (32, 32), "Q4": (16, 16), "Q6": (32, 16), "Q8": (32, 32),
}  # fmt: skip

#: Modes that have no scales.
_PLAIN = ("FP16", "FP8")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a model under the names of tabbyAPI's config; None leaves the choice to it.

    Attributes
    ----------
    max_seq_len, cache_size
        Tokens of the longest sequence, and of all that the cache holds.
    cache_mode, draft_cache_mode
        A key of `MODES`.
    chunk_size
        Tokens of a prompt that are computed at once (`max_input_len`).
    max_output_len
        Positions of which scores are made; tabbyAPI asks for 16, None for all of a part of a prompt.
    gpu_split
        GiB of each card to use, instead of all that is free.
    autosplit_reserve
        MiB of each card to leave free.
    vision
        Whether an encoder of images is loaded.
    draft
        Whether a second model drafts.
    flash_attention
        Whether flash attention is installed and used; None: where the card has what it needs.
    """

    version: str = NEWEST
    max_seq_len: int | None = None
    cache_size: int | None = None
    cache_mode: str = "FP16"
    chunk_size: int = 2048
    max_output_len: int | None = 16
    tensor_parallel: bool = False
    gpu_split: tuple[float, ...] | None = None
    autosplit_reserve: tuple[float, ...] = (96,)
    vision: bool = False
    draft: bool = False
    draft_cache_mode: str = "FP16"
    flash_attention: bool | None = None

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
        Tokens of the longest sequence, and of the cache.
    chunk
        Tokens of a prompt at once.
    """

    length: int
    tokens: int
    chunk: int


def resolve(settings: Settings, architecture: Architecture) -> Resolved:
    """Fill in defaults as tabbyAPI does (`backends/exllamav2/model.py`)."""
    tokens = round_up(settings.cache_size or settings.max_seq_len or _FALLBACK_LENGTH, PAGE)
    length = min(settings.max_seq_len or architecture.max_positions or tokens, tokens)
    if settings.cache_mode not in _PLAIN:
        # Odd widths are quantized in blocks of several tokens.
        for layer, _ in architecture.blocks:
            for mixer in layer.mixers:
                if isinstance(mixer, Attention):
                    tokens = round_up(tokens, _BLOCK // gcd(_BLOCK, mixer.kv_heads * mixer.head_dim))
    chunk = sorted((PAGE, settings.chunk_size, length))[1]
    return Resolved(length, tokens, min(round_up(chunk, PAGE), round_up(length, PAGE)))


def token_bytes(mixer: Attention, mode: str, ranks: int = 1) -> int:
    """Bytes of a token in a layer's cache."""
    wide = -(-mixer.kv_heads // ranks) * mixer.head_dim
    keys, values = MODES[mode]
    scales = 0 if mode in _PLAIN else 2 * _SCALE
    return wide * (keys + values + scales) // _GROUP
