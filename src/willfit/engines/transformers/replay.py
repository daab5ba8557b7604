"""What torch keeps reserved while generate() runs: its allocator, replayed.

The prefill asks for the tensors of each layer one after another; keys and values stay in what others leave behind.
Every step then asks for slightly larger keys and values, and a segment that has become too small for them stays
reserved. How much that adds up to depends on what fits where, so the requests are replayed
(`willfit.allocator`); of the steps only those after which a tensor needs another segment, and the
two that follow, since between them nothing changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.allocator.blocks import Block
from willfit.allocator.caching import CachingAllocator
from willfit.allocator.device import Device
from willfit.allocator.oom import DeviceFull
from willfit.allocator.sizes import LARGE_SEGMENT, MIN_LARGE, ROUND_LARGE, SMALL
from willfit.architectures.mixers import Attention, CrossAttention, LatentAttention, Mixer, Recurrent
from willfit.architectures.model import FeedForward, Layer
from willfit.engines.transformers.activations import is_fused, is_repeated, score_bytes
from willfit.engines.transformers.cache import mixer_elements, rank_divisor
from willfit.engines.transformers.experts import copied_experts
from willfit.engines.transformers.moments import Run
from willfit.engines.transformers.passes import Pass

#: A layer's widest tensor is at most about this many times its hidden states.
_WIDEST = 8

#: Steps that are replayed after a tensor has outgrown its segment: old and new tensors change places meanwhile.
_STEPS = 3


@dataclass(frozen=True, slots=True)
class Reserved:
    """Bytes of torch's segments.

    Attributes
    ----------
    peak
        At most.
    after
        Once the call is over: less than at most if the device was full, for all free segments were given back then.
    full
        Whether the device was full.
    """

    peak: int
    after: int
    full: bool


@dataclass(frozen=True, slots=True)
class _Kept:
    """Blocks of one layer's cache."""

    keys: Block
    values: Block


class _Call:
    """One generate() call on one device."""

    def __init__(self, run: Run, layers: int, first: bool, last: bool, limit: int | None) -> None:
        self.run = run
        self.first, self.last = first, last
        self.memory = CachingAllocator(None if limit is None else Device(limit))
        self.layers = _spread(run, layers)
        self.grows = run.settings.cache == "dynamic"
        self.cache: list[_Kept] = []

    def sizes(self, layer: Layer, tokens: int, windowed: bool) -> tuple[int, int]:
        """Bytes of a layer's keys and of its values."""
        run = self.run
        total = 0
        for mixer in layer.mixers:
            elements = mixer_elements(mixer, run.era, tokens, run.source_tokens, windowed)
            total += elements // rank_divisor(mixer, run.settings.tensor_parallel)
        total *= run.settings.batch * run.width
        return total - total // 2, total // 2

    def forward(self, queries: int, length: int) -> None:
        """One forward pass; the first one fills the cache."""
        step = self.run.forward(queries, length, decoding=queries == 1 and bool(self.cache))
        hidden = self.run.subject.architecture.hidden_size * step.tokens * step.width
        before = self.cache
        if before and hidden * _WIDEST < SMALL:
            self._step(step, before)
            return
        stream = self._take(hidden)
        self.cache = []
        for index, layer in enumerate(self.layers):
            stream = self._layer(step, layer, before[index] if before else None, stream, hidden)
        normed = self._normed(hidden)
        if self.last:
            self._logits(queries)
        self._give(normed, stream)
        self._forget(before)

    def _step(self, step: Pass, before: list[_Kept]) -> None:
        """A step whose activations are all small: keys and values, and what they are made for all query heads."""
        sizes: dict[int, tuple[tuple[int, int], list[int]]] = {}
        self.cache = []
        for layer, old in zip(self.layers, before, strict=True):
            found = sizes.get(id(layer))
            if found is None:
                mixer = layer.mixers[0] if layer.mixers else None
                found = self.sizes(layer, step.length, True), _repeated(self.run, step, mixer)
                sizes[id(layer)] = found
            self.cache.append(self._kept(old, *found[0]))
            self._give(*[self._take(size) for size in found[1]])
            self._copied(step, layer)
        self._forget(before)

    def _copied(self, step: Pass, layer: Layer) -> None:
        """Experts that are copied for the tokens of a step."""
        if layer.feed_forward is not None and layer.feed_forward.experts:
            copies = copied_experts(self.run.subject.architecture, step, layer.feed_forward)
            self._give(*[self._take(size) for size in copies])

    def _forget(self, before: list[_Kept]) -> None:
        """The cache before goes once the pass is over, where it was handed on as tuples."""
        if self.run.era.tuple_cache and self.grows:
            for old in before:
                self._give(old.keys, old.values)

    def _layer(
        self, step: Pass, layer: Layer, old: _Kept | None, stream: Block | None, hidden: int
    ) -> Block | None:
        """One layer, from hidden states to hidden states, by `models/llama/modeling_llama.py`."""
        normed = self._normed(hidden)
        mixed = self._attention(step, layer, old)
        self._give(normed)
        projected = self._take(hidden)
        self._give(mixed)
        between = self._take(hidden)
        self._give(projected, stream)
        if layer.feed_forward is None:
            return between
        normed = self._normed(hidden)
        down = self._feed_forward(step, layer, layer.feed_forward, hidden)
        self._give(normed)
        after = self._take(hidden)
        self._give(down, between)
        return after

    def _attention(self, step: Pass, layer: Layer, old: _Kept | None) -> Block | None:
        """Queries, keys and values, and what they are mixed to."""
        run = self.run
        mixer = layer.mixers[0] if layer.mixers else None
        queries = step.tokens * _query_width(mixer) // step.ranks * step.width
        tokens = step.length
        if not self.grows:
            tokens = run.settings.cache_len or run.first_tokens + run.settings.output_len
        sizes = self.sizes(layer, tokens, not self.grows or step.queries == 1)
        new = [size * step.queries // max(tokens, 1) for size in sizes]
        asked, keys, values = self._take(queries), self._take(new[0]), self._take(new[1])
        turned = self._turned(queries)
        turned_keys = self._turned(new[0])
        self._give(asked, keys)
        if (
            old is None
            and self.grows
            and not run.era.copied_cache
            and turned_keys is not None
            and values is not None
        ):
            kept = _Kept(turned_keys, values)
        else:
            kept = old if old is not None and not self.grows else self._kept(old, *sizes)
            self._give(turned_keys, values)
        self.cache.append(kept)
        passing: list[Block | None] = [self._take(size) for size in _repeated(run, step, mixer)]
        scores = step.batch * step.queries * step.length * (getattr(mixer, "heads", 0) // step.ranks)
        if step.attention == "eager" and scores:
            # Scores, their softmax in 32 bits, and that cast back.
            raw = self._take(scores * step.width)
            soft = self._take(scores * (score_bytes(run.subject.architecture, step) - step.width))
            self._give(raw)
            passing.append(self._take(scores * step.width))
            self._give(soft)
        width = step.tokens * getattr(mixer, "output_width", 0) // step.ranks * step.width
        mixed = self._take(width)
        self._give(turned, *passing)
        contiguous = self._take(width)
        self._give(mixed)
        return contiguous

    def _kept(self, old: _Kept | None, keys_size: int, values_size: int) -> _Kept:
        """A layer's new keys and values; the old ones go as soon as they are copied, or with the whole cache."""
        at_once = old is not None and not self.run.era.tuple_cache
        keys = self.memory.malloc(keys_size)
        if old is not None and at_once:
            self._give(old.keys)
        values = self.memory.malloc(values_size)
        if old is not None and at_once:
            self._give(old.values)
        return _Kept(keys, values)

    def _normed(self, hidden: int) -> Block | None:
        """An RMS norm: in 32 bits, with the squares and the product beside."""
        wide = hidden * 4 // self.run.width
        upcast = self._take(wide)
        self._give(self._take(wide))
        product = self._take(wide)
        self._give(upcast)
        cast = self._take(hidden)
        weighted = self._take(hidden)
        self._give(product, cast)
        return weighted

    def _turned(self, size: int) -> Block | None:
        """Rotated queries: two products and their sum."""
        straight, swapped = self._take(size), self._take(size)
        crossed = self._take(size)
        self._give(swapped)
        turned = self._take(size)
        self._give(straight, crossed)
        return turned

    def _feed_forward(self, step: Pass, layer: Layer, ffn: FeedForward, hidden: int) -> Block | None:
        width = ffn.width // step.ranks * step.tokens * step.width
        if ffn.experts:
            width = max(width, 2 * step.tokens * ffn.top_k * ffn.expert_width // step.ranks * step.width)
        self._copied(step, layer)
        expanded = self._take(step.expanded)
        parts = width // step.width * step.unsummed
        if is_fused(layer):
            # Both halves in one tensor, and the activation of the first.
            gate, activated = self._take(2 * width), self._take(width)
            product = self._take(width)
            self._give(gate, activated)
        else:
            self._give(self._take(parts))
            gate = self._take(width)
            activated = self._take(width)
            self._give(gate)
            self._give(self._take(parts))
            up = self._take(width)
            product = self._take(width)
            self._give(activated, up)
        self._give(expanded)
        down = self._take(hidden)
        self._give(product)
        return down

    def _logits(self, queries: int) -> None:
        """Logits, and their 32-bit copy."""
        run = self.run
        whole = run.prompt_logits or run.settings.phase == "prefill"
        rows = run.settings.batch * (queries if whole else 1) * run.subject.architecture.logits_per_row
        plain = self._take(rows * run.width)
        if run.prompt_logits or run.settings.phase == "generate":
            self._give(self._take(rows * 4))
        self._give(plain)

    def _take(self, size: int) -> Block | None:
        """A block for a tensor; small ones share segments and leave nothing behind."""
        return self.memory.malloc(size) if size > SMALL else None

    def _give(self, *blocks: Block | None) -> None:
        for block in blocks:
            if block is not None:
                self.memory.free(block)


def replay(run: Run, resident: int, layers: int, first: bool, last: bool, limit: int | None) -> Reserved:
    """What torch keeps reserved on one device.

    Parameters
    ----------
    resident
        Bytes that are there from loading on.
    layers
        Layers that the device holds.
    first, last
        Whether it holds the input side and the output side.
    limit
        Bytes that the device has for torch; None if that is not known.
    """
    call = _Call(run, layers, first, last, limit)
    try:
        if resident:
            call.memory.malloc(resident)
        if run.settings.phase != "load" and layers:
            _run(call)
    except DeviceFull:
        most = max(limit or 0, resident)
        return Reserved(most, most, True)
    after, peak = call.memory.reserved, call.memory.peak_reserved
    return Reserved(peak, after, after < peak)


def _run(call: _Call) -> None:
    run = call.run
    settings = run.settings
    prompt = settings.input_len
    if run.source_tokens:
        call.forward(1, run.first_tokens)
    else:
        chunk = min(settings.prefill_chunk_size or prompt, prompt)
        for end in range(chunk, prompt + chunk, chunk):
            call.forward(min(chunk, prompt - (end - chunk)), min(end, prompt))
    if settings.phase != "generate":
        return
    if not call.grows:
        return
    for tokens in _telling(call, run.first_tokens, run.last_tokens):
        call.forward(1, tokens)


def _telling(call: _Call, first: int, last: int) -> list[int]:
    """Lengths after which a tensor needs another segment, with the steps that follow."""
    times = {last} if last > first else set()
    times |= {first + step for step in range(1, _STEPS + 1) if first + step <= last}
    step = call.run.forward(1, last)
    for layer in {id(layer): layer for layer in call.layers}.values():
        keys = call.sizes(layer, last, True)[0]
        mixer = layer.mixers[0] if layer.mixers else None
        for size in {keys, *_repeated(call.run, step, mixer)}:
            per_token = size // last
            if per_token:
                times |= _passing(per_token, first, last)
    return sorted(times)


def _passing(per_token: int, first: int, last: int) -> set[int]:
    """Lengths at which a tensor that grows by some bytes a token has outgrown a segment or its part of one."""
    edges = [LARGE_SEGMENT // parts for parts in range(2, LARGE_SEGMENT // ROUND_LARGE * 2)]
    edges = [edge for edge in edges if edge < MIN_LARGE and first * per_token <= edge < last * per_token]
    least = max(MIN_LARGE, first * per_token)
    edges += range(-(-least // ROUND_LARGE) * ROUND_LARGE, last * per_token, ROUND_LARGE)
    found = {edge // per_token + step for edge in edges for step in range(1, _STEPS + 1)}
    return {length for length in found if first < length <= last}


def _spread(run: Run, count: int) -> list[Layer]:
    """As many layers as a device holds, kinds mixed as in the model."""
    layers = list(run.subject.architecture.layers)
    if not layers or count >= len(layers):
        return layers
    return [layers[index * len(layers) // count] for index in range(count)]


def _query_width(mixer: Mixer | None) -> int:
    """Elements of a token's queries."""
    if isinstance(mixer, LatentAttention):
        return mixer.heads * (mixer.nope_dim + mixer.rope_dim)
    if isinstance(mixer, Recurrent):
        return mixer.projected_width
    return mixer.heads * mixer.head_dim if isinstance(mixer, Attention | CrossAttention) else 0


def _repeated(run: Run, step: Pass, mixer: Mixer | None) -> list[int]:
    """Bytes of keys and values as they are made for all query heads, where they are."""
    tokens = step.batch * step.length
    if isinstance(mixer, LatentAttention):
        keys = mixer.heads * (mixer.nope_dim + mixer.rope_dim)
        return [tokens * keys * step.width, tokens * mixer.heads * mixer.value_dim * step.width]
    if not isinstance(mixer, Attention | CrossAttention):
        return []
    if not is_repeated(run.subject.architecture, run.era, step, mixer):
        return []
    size = tokens * mixer.heads // step.ranks * mixer.head_dim * step.width
    return [size, size]
