"""What mlx-lm keeps of a sequence: caches that grow in blocks, rotate within a window, or stay (`models/cache.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.mixers import (
    Attention,
    CompressedAttention,
    IndexedAttention,
    LatentAttention,
    Mixer,
)
from willfit.architectures.model import Architecture
from willfit.engines.mlx.eras import Era
from willfit.engines.mlx.model_table import MAKING_CACHES
from willfit.engines.mlx.settings import Settings
from willfit.quantities import at_least, round_up

#: Bits of the scale and of the bias that a group of quantized keys or values has, in units of the cache's own numbers.
_SCALES = 2


@dataclass(frozen=True, slots=True)
class Change:
    """How a cache changes in a pass: tokens that it has room for.

    Attributes
    ----------
    before, after
        Room before and after it.
    block
        Room that is added, as an array of its own.
    """

    before: int
    after: int
    block: int = 0

    @property
    def grown(self) -> bool:
        """Whether it is copied to a larger one."""
        return self.after != self.before


@dataclass(frozen=True, slots=True)
class Growth:
    """How caches change in a pass over `queries` tokens after which a sequence has `tokens`.

    Attributes
    ----------
    tokens, queries
        See above.
    step
        Tokens by which caches grow.
    limit
        `--max-kv-size`, where the model's caches follow it; 0 without.
    """

    tokens: int
    queries: int
    step: int
    limit: int = 0

    def of(self, mixer: Mixer) -> Change:
        """Room of a layer's cache before and after."""
        window = self.limit or reach(mixer)
        before = self.tokens - self.queries
        if not window:
            had, has = (round_up(at_least(n, 0), self.step) for n in (before, self.tokens))
            return Change(had, has, has - had)
        if self.queries > 1:
            # Old tokens of the window and all new ones, as a new array.
            return Change(min(before, window - 1 + self.queries), min(self.tokens, window - 1 + self.queries))
        had, has = (min(round_up(n, self.step), window) for n in (before, self.tokens))
        return Change(had, has, has - had)

    def seen(self, mixer: Mixer, keys: int) -> int:
        """Keys that are attended to."""
        window = self.limit or reach(mixer)
        return min(keys, window - 1 + self.queries) if window else keys


@dataclass(frozen=True, slots=True)
class Kept:
    """What layers of one kind keep of a sequence.

    Attributes
    ----------
    layers
        How many.
    tokens
        Tokens that each has room for; 0 for a state.
    elements
        Numbers of a token, or of the state, in each.
    width
        Bytes of a number; fractions where they are quantized.
    """

    layers: int
    tokens: int
    elements: int
    width: float

    @property
    def bytes(self) -> int:
        """All layers together."""
        return int(self.layers * (self.tokens or 1) * self.elements * self.width)

    @property
    def formula(self) -> str:
        """How they come about."""
        tokens = f"{self.tokens} tokens x " if self.tokens else ""
        return f"{self.layers} layers x {tokens}{self.elements} x {self.width:.15g} B"


def reach(mixer: Mixer) -> int:
    """Tokens that a layer looks back on; 0 for all."""
    return (mixer.window or mixer.chunk) if isinstance(mixer, Attention) else 0


def limit_of(architecture: Architecture, settings: Settings) -> int:
    """`--max-kv-size`, which models that make their caches themselves pass over (`make_prompt_cache`)."""
    if settings.max_kv_size is None or MAKING_CACHES.has(architecture.model_type, settings.version):
        return 0
    return settings.max_kv_size


def elements_per_token(mixer: Mixer, era: Era, model_type: str) -> int:
    """Numbers of a token in a layer; 0 where it keeps none."""
    if isinstance(mixer, Attention):
        return 0 if mixer.shares_cache or not mixer.keeps_cache else mixer.elements_per_token
    if isinstance(mixer, LatentAttention):
        if era.keeps_latent(model_type):
            return mixer.latent_per_token + mixer.index_dim
        return mixer.heads * (mixer.nope_dim + mixer.rope_dim + mixer.value_dim) + mixer.index_dim
    if isinstance(mixer, IndexedAttention):
        return mixer.elements_per_token
    return 0


def quantized_width(settings: Settings, width: int) -> float:
    """Bytes of a quantized number: its bits, and its part of a scale and a bias for each group."""
    bits = settings.kv_bits or 0
    return bits / 8 + _SCALES * width / settings.kv_group_size


def kept(
    architecture: Architecture, era: Era, growth: Growth, width: int, quantized: float = 0.0
) -> tuple[Kept, ...]:
    """What one sequence keeps.

    Parameters
    ----------
    growth
        The pass after which it is asked for.
    width
        Bytes of a number of the cache.
    quantized
        The same where the cache is quantized; caches with a window never are.
    """
    counts: dict[Kept, int] = {}
    for layer, times in architecture.blocks:
        for mixer in layer.mixers:
            found = _states(mixer, width)
            elements = elements_per_token(mixer, era, architecture.model_type)
            if elements:
                each = width if not quantized or reach(mixer) else quantized
                found.append(Kept(1, growth.of(mixer).after, elements, each))
            elif isinstance(mixer, CompressedAttention):
                found.append(Kept(1, 0, mixer.cached_elements(growth.tokens), width))
            for one in found:
                counts[one] = counts.get(one, 0) + times
    return tuple(Kept(times, one.tokens, one.elements, one.width) for one, times in counts.items())


def _states(mixer: Mixer, width: int) -> list[Kept]:
    """States of a fixed size: recurrent ones in fp32, inputs of convolutions as computed."""
    return [
        Kept(1, 0, state.elements, 4 if state.name == "recurrent" else width) for state in mixer.fixed_states
    ]
