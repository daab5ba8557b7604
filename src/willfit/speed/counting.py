"""From a model as it is stored to what a rank reads and computes in a pass."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from willfit.architectures.held import RECURRENT_DTYPE
from willfit.architectures.mixers import Attention, CrossAttention, IndexedAttention, Mixer
from willfit.architectures.model import Architecture, FeedForward, Tensor
from willfit.engines.base import Subject
from willfit.engines.sharding import Sharding, rank_bytes
from willfit.formats.base import Format
from willfit.formats.weights import rank_shape
from willfit.quantities import DTYPE_BYTES, ceil_div
from willfit.speed.work import KINDS, Experts, Kind, Mixed, Weights, Work

#: Bits of a weight, scales included, from which on a format counts as plain, and as one of 8 bits.
_PLAIN_BITS, _EIGHT_BITS = 12, 7

#: Tensors of layers that every token is multiplied with.
_MULTIPLIED = frozenset({"linear", "conv"})

#: Projections of a decoder that make keys and values of an encoder's output.
_OF_SOURCE = re.compile(r"(encoder_attn|cross_attn|EncDecAttention)\.(k|v)")


def work_of(
    subject: Subject,
    tensor: int = 1,
    experts: int = 1,
    dtype: str | None = None,
    cache_bytes: float | None = None,
    source_tokens: int = 0,
) -> Work:
    """What one rank does of a model.

    Parameters
    ----------
    tensor, experts
        Degrees of tensor and of expert parallelism; the latter may be the larger one, where replicas of all else
        share the experts.
    dtype
        In which the engine keeps and computes what is not quantized; None for the checkpoint's.
    cache_bytes
        Of one cached element; None for that of `dtype`.
    source_tokens
        Positions of an encoder that the model does not fix.
    """
    architecture = subject.architecture
    dtype = dtype or (architecture.dtype if architecture.dtype in DTYPE_BYTES else "bf16")
    sharding = Sharding(tensor, experts=experts)
    roles = _roles(architecture)
    sums: dict[tuple[str, Kind], Counter[str]] = defaultdict(Counter)
    routed: dict[tuple[Kind, int, int], Counter[str]] = defaultdict(Counter)
    table, row_bytes = None, 0
    for line in subject.lines:
        one = line.tensor
        if one.part in ("mtp", "vision", "audio") or one.kind == "buffer":
            continue
        size, elements = rank_bytes(line, sharding, dtype), one.elements * line.times
        kind = kind_of(line.format, line.bytes, elements)
        if one.kind == "embedding" and one.part == "embedding":
            row_bytes += ceil_div(line.bytes, one.shape[0])
            if one.shape[0] == architecture.vocab_size:
                table = (kind, size, prod(rank_shape(one, tensor)))
            continue
        ffn = roles.feed_forward.get(id(one))
        is_routed = one.part == "experts" and ffn is not None and bool(ffn.experts)
        # Ranks that share the experts out divide each as often as there are more of them.
        divided = max(1, tensor // experts) if is_routed else tensor
        products = prod(rank_shape(one, divided)) * one.copies * line.times if one.kind in _MULTIPLIED else 0
        if is_routed and ffn is not None:
            routed[kind, ffn.experts, max(1, ffn.top_k)].update(
                bytes=size, products=ceil_div(products, experts)
            )
            continue
        runs = roles.runs.get(id(one), 1.0)
        place = "head" if one.part == "head" else "encoder" if id(one) in roles.encoder else "dense"
        sums[place, kind].update(bytes=int(size * runs), products=int(products * runs))
    if architecture.tied and table is not None:
        sums["head", table[0]].update(bytes=table[1], products=table[2])
    return Work(
        dense=_weights(sums, "dense"),
        encoder=_weights(sums, "encoder"),
        experts=tuple(
            Experts(kind, found["bytes"], found["products"], number, chosen, roles.layers[number, chosen])
            for (kind, number, chosen), found in routed.items()
        ),
        head=_weights(sums, "head"),
        mixed=_mixed(architecture.blocks, tensor),
        encoder_mixed=_mixed(architecture.encoder_blocks, tensor),
        row_bytes=row_bytes,
        state_bytes=_state_bytes(architecture, dtype, tensor),
        cache_bytes=DTYPE_BYTES[dtype] if cache_bytes is None else cache_bytes,
        hidden=architecture.hidden_size,
        layers=len(architecture.layers),
        ranks=tensor,
        source_tokens=architecture.encoder_tokens or source_tokens,
        causal=architecture.causal,
    )


def kind_of(stored: Format, size: int, elements: int) -> Kind:
    """The kind of a format, by its name and the bits that a weight takes in it."""
    bits = 8 * size / max(1, elements)
    if bits >= _PLAIN_BITS:
        return "plain"
    if bits >= _EIGHT_BITS:
        return "fp8" if "fp8" in stored.name or "mxfp8" in stored.name else "int8"
    if stored.name.startswith(("nvfp4", "mxfp4")):
        return "fp4"
    return "awq" if stored.name.startswith("awq") else "int4"


@dataclass(frozen=True, slots=True)
class _Roles:
    """What tensors are for, by their identity.

    Attributes
    ----------
    feed_forward
        The feed-forward part that a tensor is in.
    layers
        Layers with so many experts, of which a token visits so many.
    encoder
        Those of the encoder, and a decoder's projections of its output: they run once for a source.
    runs
        How often a pass runs a tensor that layers share.
    """

    feed_forward: dict[int, FeedForward | None]
    layers: Mapping[tuple[int, int], int]
    encoder: frozenset[int]
    runs: dict[int, float]


def _roles(architecture: Architecture) -> _Roles:
    feed_forward: dict[int, FeedForward | None] = {}
    layers: Counter[tuple[int, int]] = Counter()
    for layer, times in (*architecture.blocks, *architecture.encoder_blocks):
        ffn = layer.feed_forward
        feed_forward |= {id(tensor): ffn for tensor in layer.tensors}
        if ffn is not None and ffn.experts:
            layers[ffn.experts, max(1, ffn.top_k)] += times
    encoder = {id(tensor) for layer, _ in architecture.encoder_blocks for tensor in layer.tensors}
    encoder |= {
        id(tensor)
        for layer, _ in architecture.blocks
        for tensor in layer.tensors
        if _OF_SOURCE.search(tensor.name)
    }
    return _Roles(feed_forward, layers, frozenset(encoder), _shared_runs(architecture))


def _shared_runs(architecture: Architecture) -> dict[int, float]:
    """How often each shared tensor runs: layers with attention that own no projection of keys take turns."""
    users = sum(
        times
        for layer, times in architecture.blocks
        if any(isinstance(mixer, Attention) for mixer in layer.mixers)
        and not any("k_proj" in tensor.name or "qkv" in tensor.name for tensor in layer.tensors)
    )
    blocks = Counter(_stem(tensor) for tensor in architecture.shared)
    return {id(tensor): max(1.0, users / max(1, len(blocks))) for tensor in architecture.shared}


def _stem(tensor: Tensor) -> str:
    """The block that a shared tensor is in: its name as far as the first index."""
    words = tensor.name.split(".")
    first = next((place for place, word in enumerate(words) if word.isdecimal()), 0)
    return ".".join(words[: first + 1])


def _weights(sums: dict[tuple[str, Kind], Counter[str]], place: str) -> tuple[Weights, ...]:
    return tuple(
        Weights(kind, sums[place, kind]["bytes"], sums[place, kind]["products"])
        for kind in KINDS
        if (place, kind) in sums
    )


def _mixed(blocks: tuple[tuple[Any, int], ...], ranks: int) -> tuple[Mixed, ...]:
    counts: Counter[Mixer] = Counter()
    for layer, times in blocks:
        for mixer in layer.mixers:
            counts[mixer] += times
    found = []
    for mixer, layers in counts.items():
        heads = getattr(mixer, "heads", 1)
        share = ceil_div(heads, ranks) / heads
        cached = 1.0
        if isinstance(mixer, Attention | CrossAttention | IndexedAttention):
            cached = ceil_div(mixer.kv_heads, ranks) / mixer.kv_heads
        found.append(Mixed(mixer, layers, share, cached))
    return tuple(found)


def _state_bytes(architecture: Architecture, dtype: str, ranks: int) -> int:
    size = 0
    for layer, times in architecture.blocks:
        for mixer in layer.mixers:
            for state in mixer.fixed_states:
                stored = dtype if state.name == "conv" else state.dtype or RECURRENT_DTYPE
                share = ceil_div(state.units, ranks) / state.units
                size += int(times * state.elements * share) * DTYPE_BYTES[stored]
    return size
