"""Buffers as terms: their formulas in words, device by device."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from willfit.checkpoints.gguf import GgufTensor
from willfit.engines.llama_cpp.builds import build_of
from willfit.engines.llama_cpp.cache.layers import layer_caches
from willfit.engines.llama_cpp.graph import families
from willfit.engines.llama_cpp.graph.tensor import Node
from willfit.engines.llama_cpp.plan import Model, cache_buffers, input_parts, output_width
from willfit.engines.llama_cpp.sizing import Sizing
from willfit.engines.llama_cpp.sources import SOURCES
from willfit.estimate import Term, between, exact
from willfit.ggml_types import GGML_TYPES

#: Tensors of a compute buffer that are named one by one.
_NAMED = 6
#: Types from coarse to fine, and by how many steps single tensors of a mix may be finer than most.
_LADDER = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
_STEPS = 2
#: A graph that is only approximated may need this many times less or more.
_UNKNOWN_GRAPH = 2.0
#: The same of ik_llama.cpp's where weights lie elsewhere: nine of ten logged buffers come out to the byte, most others
#: within this, by how their operations are ordered.
_MOVED_WEIGHTS = 1.25

_IN_LAYER = re.compile(r"(?:enc\.|dec\.)?blk\.(\d+)\.")


def cite(sizing: Sizing, rule: str) -> str:
    """Where a rule was read."""
    return SOURCES.cite(rule, str(build_of(sizing.resolved.version)))


def weights_term(sizing: Sizing, place: str, name: str = "weights") -> Term | None:
    """Weights in one buffer; None if it holds none."""
    size = sizing.model.bytes.get(place, 0)
    if not size:
        return None
    kinds: Counter[str] = Counter()
    for one in sizing.model.placed:
        if one.buffer.place == place:
            kinds[one.tensor.type] += one.tensor.bytes
    parts = [f"{held} B of {kind}" for kind, held in kinds.most_common()]
    text = " + ".join(parts)
    beyond = size - sum(kinds.values())
    structs = sizing.model.structs if place in ("CPU", "CPU_Mapped") else 0
    if structs and beyond == structs:
        text += f" + {structs} B of structures that describe tensors"
    elif beyond > 0:
        text += f" + {beyond} B between them"
    elif beyond < 0:
        text += f" - {-beyond} B that are counted twice"
    low, high = (int(size * part) for part in sizing.model.spread)
    mapped = place == "CPU_Mapped" or any(
        one.buffer.mapped for one in sizing.model.placed if one.buffer.place == place
    )
    if mapped and not sizing.model.ordered:
        # What lies between depends on the order in the file.
        low, high = min(low, size - max(0, beyond)), max(high, most_mapped(sizing.model, place))
    return between(name, size, low, high, text, cite(sizing, "weights"))


def most_mapped(model: Model, place: str) -> int:
    """What ranges of a mapped file take at most in a buffer if the order of its tensors is not known.

    Files hold layer after layer, in each its tensors in any order, and what is outside of the layers anywhere.
    """
    tensors = [(_layer(tensor), tensor.bytes) for tensor in model.header.tensors]
    most = 0
    for apart in (False, True):
        held = [one.tensor for one in model.placed if one.buffer.place == place and one.buffer.apart == apart]
        layers = [_layer(tensor) for tensor in held]
        if len(held) == 1:
            most += held[0].bytes
        elif held:
            whole = min(layers) < 0
            most += sum(
                size for layer, size in tensors if whole or layer < 0 or min(layers) <= layer <= max(layers)
            )
    return most


def _layer(tensor: GgufTensor) -> int:
    """The layer that a tensor belongs to; -1 for those outside."""
    found = _IN_LAYER.match(tensor.name)
    return int(found[1]) if found else -1


def divided_term(sizing: Sizing, index: int) -> Term | None:
    """A device's rows of matrices that are divided among devices; None without any."""
    split, size = sizing.model.split, sizing.model.divided_bytes(index)
    if split is None or not size:
        return None
    end = (*split.starts, 1.0)[index + 1]
    text = f"{size} B of rows from {split.starts[index]:.3f} to {end:.3f} of each matrix"
    return exact("divided_weights", size, text, cite(sizing, "rows"))


def made_term(sizing: Sizing, place: str) -> Term | None:
    """What is made of the file's tensors when it is loaded; None if nothing is."""
    size = sizing.model.made_bytes(place)
    if not size:
        return None
    return exact(
        "prepared_weights",
        size,
        f"{size} B of latents' projections that the file lacks",
        f"ik_llama.cpp {sizing.resolved.version}: src/llama.cpp: llm_prepare_mla",
    )


def slices_terms(sizing: Sizing, index: int) -> tuple[Term, ...]:
    """A device's weights, caches and states where tensors are divided among devices, and what it computes."""
    part = sizing.divided[index]
    text = f"{part.weights - part.whole} B of slices + {part.whole} B that every device has"
    cited = cite(sizing, "slices")
    low, high = (int(part.weights * spread) for spread in sizing.model.spread)
    found: list[Term | None] = [between("weights", part.weights, low, high, text, cited)]
    for name, size in (("kv_cache", part.keys_values), ("recurrent_state", part.states)):
        if size:
            found.append(exact(name, size, f"{size} B of the heads of this device", cited))
    found += [compute_term(sizing, sizing.model.backends[0].place), exchange_term(sizing)]
    return tuple(term for term in found if term is not None)


def exchange_term(sizing: Sizing) -> Term:
    """Where devices add up what each has computed of a product, for the largest that they add up."""
    architecture, devices = sizing.model.architecture, len(sizing.devices)
    experts = any(
        "ffn_down_exps" in one.name and one.buffer.device is not None for one in sizing.model.placed
    )
    chosen = max((layer.feed_forward.top_k for layer in architecture.layers if layer.feed_forward), default=0)
    rows = sizing.resolved.n_ubatch * (chosen if experts else 1)
    steps = (devices - 1).bit_length()
    size = steps * rows * architecture.hidden_size * 4
    text = f"{steps} steps x {rows} rows x {architecture.hidden_size} x 4 B"
    return exact("communication", size, text, cite(sizing, "exchange"))


def keys_values_term(sizing: Sizing, place: str) -> Term | None:
    """Keys and values in one buffer; None if it holds none."""
    return _cache_term(sizing, place, "kv_cache", ("k", "v", "index"), sizing.context.keys_values, "cells")


def states_term(sizing: Sizing, place: str) -> Term | None:
    """Recurrent states in one buffer; None if it holds none."""
    return _cache_term(sizing, place, "recurrent_state", ("r", "s"), sizing.context.states, "sequences")


def _cache_term(
    sizing: Sizing, place: str, name: str, parts: Sequence[str], sizes: object, rows: str
) -> Term | None:
    assert hasattr(sizes, "get")
    size = int(sizes.get(place, 0))
    if not size:
        return None
    settings = sizing.resolved.context(sizing.settings, sizing.context.flash_attn, False).cache
    buffers = cache_buffers(sizing.model, sizing.settings.kv_offload, kept=settings.keeps_drafts)
    counts: Counter[tuple[int, int]] = Counter()
    seen: set[int] = set()
    for cache, buffer in zip(
        layer_caches(sizing.model.architecture, settings, buffers), buffers, strict=True
    ):
        if buffer.place != place or id(cache) in seen:
            continue
        seen.add(id(cache))
        row = 0
        count = 0
        for part in parts:
            tensor: Node | None = getattr(cache, part)
            if tensor is not None:
                kind = GGML_TYPES[tensor.type]
                row += tensor.ne[0] // kind.block * kind.bytes
                count = tensor.ne[1] * tensor.ne[2]
        if row:
            counts[count, row] += 1
    text = " + ".join(f"{times} layers x {count} {rows} x {row} B" for (count, row), times in counts.items())
    beyond = size - sum(times * count * row for (count, row), times in counts.items())
    if beyond:
        text += f" + {beyond} B of padding"
    rule = "keys and values" if name == "kv_cache" else "states"
    return exact(name, size, text, cite(sizing, rule))


def doubt_of(sizing: Sizing) -> tuple[float, str]:
    """How many times less or more may be computed where that is not established, and why; 1 and nothing where it is.

    ik_llama.cpp has rules of its own for weights that lie elsewhere, and Hexagon's depend on its scratch memory.
    """
    if sizing.backend == "hexagon":
        note = "what Hexagon computes is not established: compute buffers may be half or twice as large"
        return _UNKNOWN_GRAPH, note
    offload = sizing.offload
    whole = not offload.overrides and offload.layers > len(sizing.model.places.layers)
    if sizing.settings.fork == "llama.cpp" or not sizing.devices or (whole and not sizing.pipelined):
        return 1.0, ""
    return _MOVED_WEIGHTS, (
        "weights are on several devices or in RAM: most compute buffers of ik_llama.cpp come out to the byte then, "
        "some are up to a quarter smaller or larger"
    )


def compute_term(sizing: Sizing, place: str) -> Term | None:
    """What is computed, when most of it is alive."""
    size = sizing.context.compute.get(place, 0)
    if not size:
        return None
    peak = sizing.context.peaks[place]
    named = peak[:_NAMED]
    parts = [f"{held} B of {what}" for held, what in named]
    rest = sum(held for held, _ in peak[_NAMED:])
    if rest:
        parts.append(f"{rest} B of smaller ones")
    gaps = size - sum(held for held, _ in peak)
    text = " + ".join(parts)
    if gaps > 0:
        text += f" + {gaps} B of gaps" if text else f"{gaps} B"
    cited = cite(sizing, "compute")
    low, high = (size + change for change in _changes(sizing, peak))
    known = families.is_known(sizing.model.architecture.model_type)
    times = doubt_of(sizing)[0] if known else _UNKNOWN_GRAPH
    if times > 1:
        low, high = int(low / times), int(high * times)
    return between("compute", size, low, high, text or f"{size} B", cited)


def _changes(sizing: Sizing, peak: Sequence[tuple[int, str]]) -> tuple[int, int]:
    """How much smaller or larger copies of weights may be where the mix is not known.

    The largest matters, and makers of mixes keep some tensors in finer types than the rest.
    """
    least, most = sizing.model.spread
    low = high = 0.0
    for held, what in peak:
        placed = sizing.model.named.get(what) if most > 1 else None
        if placed is not None:
            low += held * (least - 1)
            high += held * max(most - 1, _finer(placed.tensor.type) - 1)
    return int(low), int(high)


def _finer(kind: str) -> float:
    """How many times the bits of a type the finer one has that single tensors may be kept in."""
    bits = GGML_TYPES[kind].bits_per_weight
    finer = [one for name in _LADDER if (one := GGML_TYPES[name].bits_per_weight) > bits]
    return finer[:_STEPS][-1] / bits if finer else 1.0


def inputs_term(sizing: Sizing) -> Term | None:
    """The buffer of inputs; None where they are part of what is computed."""
    size = sizing.context.inputs
    if not size:
        return None
    cache = sizing.resolved.context(sizing.settings, sizing.context.flash_attn, False).cache
    parts = input_parts(sizing.model, cache, sizing.resolved.era)
    text = f"4 B x ({' + '.join(map(str, parts))}) elements"
    return exact("inputs", size, text, cite(sizing, "compute"))


def output_term(sizing: Sizing) -> Term:
    """Results that are copied to the host."""
    context = sizing.context
    resolved = sizing.resolved
    width = output_width(sizing.model.architecture, resolved.embeddings, resolved.pooling, resolved.results)
    if not width:
        return exact("outputs", 0, "0 B", cite(sizing, "outputs"))
    text = f"{context.output // (4 * width)} rows x {width} x 4 B"
    return exact("outputs", context.output, text, cite(sizing, "outputs"))
