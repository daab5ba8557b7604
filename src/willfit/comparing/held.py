"""Why what sequences hold differs: another model, context, number of sequences, dtype or division.

One after the other takes B's value, as in `attribution`; what remains is what the engines take beyond the maths.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from willfit.architectures.held import RECURRENT_DTYPE, layer_state_bytes
from willfit.architectures.mixers import Attention, LatentAttention, Mixer
from willfit.architectures.model import Architecture
from willfit.comparing.records import Reason
from willfit.comparing.sides import Side
from willfit.quantities import ceil_div, format_bytes


@dataclass(frozen=True, slots=True)
class Held:
    """What the sequences of a side must hold on a device.

    Attributes
    ----------
    context, users
        Tokens of each sequence, and how many run at once.
    dtype, element_bytes
        Of the cache.
    tensor, pipeline
        Ranks that it is divided over.
    states
        Count fixed states, too, or instead.
    cache
        Count what grows with the tokens.
    """

    architecture: Architecture
    context: int
    users: int
    dtype: str
    element_bytes: int
    tensor: int
    pipeline: int
    cache: bool = True
    states: bool = True

    @property
    def bytes(self) -> int:
        """Bytes on a device."""
        architecture = self.architecture
        source = architecture.encoder_tokens or (self.context if architecture.encoder else 0)
        size = 0
        for layer, times in architecture.blocks:
            if self.cache:
                for mixer in layer.mixers:
                    elements = mixer.cached_elements(self.context, source) * _held_part(mixer, self.tensor)
                    size += times * int(elements) * self.element_bytes
            if self.states:
                size += times * layer_state_bytes(layer, architecture.dtype, RECURRENT_DTYPE) // self.tensor
        return size * self.users // self.pipeline


def held_by(side: Side, cache: bool = True, states: bool = True) -> Held:
    """What a side's sequences must hold."""
    tensor, pipeline = side.ranks
    if side.pool_bytes is None and tensor * pipeline == 1:
        pipeline = len(side.estimate.devices)  # whole layers on each device
    return Held(
        side.architecture, side.context, side.users, side.cache_dtype, side.element_bytes, tensor, pipeline,
        cache, states,
    )  # fmt: skip


def held_reasons(
    a: Held, b: Held, sizes: tuple[int, int], beyond: str, causes: Sequence[str] = ()
) -> list[Reason]:
    """Why two sizes differ that hold sequences.

    Parameters
    ----------
    sizes
        What the two sides take for them.
    beyond
        What to say of the part that the maths does not explain; its two amounts follow.
    causes
        What the engine does differently there.
    """
    changed = {
        "model": {"architecture": b.architecture},
        "context": {"context": b.context},
        "users": {"users": b.users},
        "dtype": {"dtype": b.dtype, "element_bytes": b.element_bytes},
        "ranks": {"tensor": b.tensor, "pipeline": b.pipeline},
    }
    words = {
        "model": f"A: {kept_in_words(a.architecture)}; B: {kept_in_words(b.architecture)}",
        "context": f"context {a.context:,} → {b.context:,}",
        "users": f"users {a.users:,} → {b.users:,}",
        "dtype": f"cache in {a.dtype} → {b.dtype}, {a.element_bytes} → {b.element_bytes} B an element",
        "ranks": _division_in_words(a, b),
    }
    reasons, now = [], a
    for name, fields in changed.items():
        following = replace(now, **fields)  # type: ignore[arg-type]
        if following.bytes != now.bytes:
            reasons.append(Reason(words[name], following.bytes - now.bytes))
        now = following
    rest = (sizes[1] - sizes[0]) - (b.bytes - a.bytes)
    if rest:
        extra = (sizes[0] - a.bytes, sizes[1] - b.bytes)
        amounts = f"{beyond}: {_signless(extra[0])} → {_signless(extra[1])}"
        reasons.append(Reason("; ".join((amounts, *causes)), rest))
    return reasons


def kept_in_words(architecture: Architecture) -> str:
    """What the layers keep: `8 layers all tokens, 40 layers 1,024 tokens (8 KV heads x 256)`."""
    counted: Counter[str] = Counter()
    for layer, times in architecture.blocks:
        for mixer in layer.mixers:
            words = _mixer_in_words(mixer)
            if words:
                counted[words] += times
    return (
        ", ".join(f"{count} layers keep {words}" for words, count in counted.items())
        or "no layer keeps anything"
    )


def _mixer_in_words(mixer: Mixer) -> str:
    if isinstance(mixer, LatentAttention):
        return f"a latent of {mixer.latent_per_token:,}"
    if isinstance(mixer, Attention):
        if mixer.shares_cache or not mixer.keeps_cache:
            return ""
        reach = mixer.window or mixer.chunk
        dims = (
            f"{mixer.head_dim}"
            if mixer.head_dim == mixer.value_dim
            else f"({mixer.head_dim} + {mixer.value_dim})"
        )
        heads = f"{mixer.kv_heads} KV head{'s' if mixer.kv_heads > 1 else ''} x {dims}"
        return f"{f'{reach:,} tokens' if reach else 'all tokens'} of {heads}"
    return "a fixed state" if mixer.fixed_states else f"{mixer.kind}"


def _held_part(mixer: Mixer, ranks: int) -> float:
    """The part of a layer's cache that one of the tensor-parallel ranks holds."""
    if isinstance(mixer, LatentAttention):
        return 1.0
    heads = getattr(mixer, "kv_heads", 0)
    return ceil_div(heads, ranks) / heads if heads else 1 / ranks


def _division_in_words(a: Held, b: Held) -> str:
    words = f"divided over {a.tensor * a.pipeline} → {b.tensor * b.pipeline} ranks"
    mixers = [mixer for layer, _ in b.architecture.blocks for mixer in layer.mixers]
    heads = min((mixer.kv_heads for mixer in mixers if isinstance(mixer, Attention)), default=0)
    most = max(a.tensor, b.tensor)
    if any(isinstance(mixer, LatentAttention) for mixer in mixers):
        words += "; a latent is held whole by every tensor-parallel rank"
    elif heads and heads < most:
        words += f"; {heads} KV head{'s' if heads > 1 else ''} over {most} ranks: each is held {most // heads} times"
    return words


def _signless(size: int) -> str:
    return f"{'−' if size < 0 else ''}{format_bytes(abs(size))}"
