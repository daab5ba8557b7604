"""All buffers of one context: weights, caches, what is computed, results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from willfit.architectures.gguf.metadata import Metadata
from willfit.architectures.model import Architecture
from willfit.checkpoints.gguf import GgufHeader
from willfit.engines.llama_cpp.backends.processor import Processor
from willfit.engines.llama_cpp.cache.layers import CacheSettings, cached_layers, layer_caches
from willfit.engines.llama_cpp.cache.loops import runs
from willfit.engines.llama_cpp.era import Era
from willfit.engines.llama_cpp.graph import families
from willfit.engines.llama_cpp.graph.network import Batch, LayerCache, Network
from willfit.engines.llama_cpp.graph.scheduler import Backend, Reserved, Scheduler
from willfit.engines.llama_cpp.graph.tensor import Buffer, Node
from willfit.engines.llama_cpp.loading.layers import LayerPlaces
from willfit.engines.llama_cpp.loading.rows import RowSplit
from willfit.engines.llama_cpp.loading.weights import Loader, Placed, Weights, alike, buffer_bytes, by_name

#: The part of a buffer that is added to it.
_MARGIN = 10

#: Architectures whose batches need more for one sequence than for several.
_ONE_IS_WORSE = frozenset(("kimi-linear", "minimax-01"))


@dataclass(frozen=True, slots=True)
class Model:
    """A model in its buffers.

    Attributes
    ----------
    header, architecture
        The file, and what it describes.
    places, placed
        Where layers and tensors are.
    backends
        Devices by index, then the processor.
    split
        How rows of matrices are divided among devices; None where matrices stay whole.
    structs
        What describes the tensors, where that counts with those on the host.
    named
        Tensors by name; see `loading.weights.by_name`.
    alike
        Of each layer a number, the same where tensors are alike.
    made
        Tensors that are made of others when the file is loaded; see `loading.prepared`.
    ordered
        The file's own order of tensors is known.
    spread
        The least and the most that the weights may take, by what is counted: other than 1 where a mix is not known.
    """

    header: GgufHeader
    architecture: Architecture
    places: LayerPlaces
    placed: tuple[Placed, ...]
    backends: tuple[Backend, ...]
    named: Mapping[str, Placed]
    alike: tuple[int, ...]
    spread: tuple[float, float] = (1.0, 1.0)
    split: RowSplit | None = None
    made: tuple[Placed, ...] = ()
    ordered: bool = True
    structs: int = 0

    @property
    def meta(self) -> Metadata:
        """The header's metadata."""
        return Metadata(self.header.metadata)

    @property
    def bytes(self) -> dict[str, int]:
        """Bytes of each buffer of weights."""
        sizes = buffer_bytes(self.placed, self.backends, self.split, whole_ranges=not self.structs)
        if self.structs:
            plain = "CPU" if "CPU" in sizes else "CPU_Mapped"
            sizes[plain] = sizes.get(plain, 0) + self.structs
        return sizes

    def made_bytes(self, place: str) -> int:
        """Bytes of what is made on a device when the file is loaded; for the host all that is not on devices."""
        devices = {one.place for one in self.backends[:-1]}
        here = (place,) if place in devices else ()
        return sum(
            one.tensor.bytes
            for one in self.made
            if one.buffer.place in here or (not here and one.buffer.device is None)
        )

    def divided_bytes(self, device: int) -> int:
        """Bytes of a device's rows of matrices that are divided among devices."""
        split = self.split
        if split is None:
            return 0
        names = {split.place(index) for index in range(len(split.starts))}
        tensors = {one.tensor.name: one.tensor for one in self.placed if one.buffer.place in names}
        return sum(split.bytes(tensor)[device] for tensor in tensors.values())


def load(
    header: GgufHeader,
    architecture: Architecture,
    loader: Loader,
    skipped: frozenset[str] = frozenset(),
    bounds: tuple[int, int] | None = None,
    ordered: bool = True,
    struct_bytes: int = 0,
) -> Model:
    """Place a model's tensors.

    Parameters
    ----------
    bounds
        What all tensors take at least and at most, if that is open.
    ordered
        See `Model`.
    struct_bytes
        What describes one tensor, where that counts.
    """
    placed = tuple(loader.place(header, architecture.tied, skipped))
    own = sum(tensor.bytes for tensor in header.tensors)
    spread = (bounds[0] / own, bounds[1] / own) if bounds and own else (1.0, 1.0)
    named = by_name(placed, len(loader.backends) - 1)
    layers = alike(placed, len(architecture.layers))
    structs = struct_bytes * len(header.tensors)
    return Model(
        header,
        architecture,
        loader.places,
        placed,
        loader.backends,
        named,
        layers,
        spread,
        loader.split,
        ordered=ordered,
        structs=structs,
    )


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """What a context is made with.

    Attributes
    ----------
    cache
        See `CacheSettings`.
    outputs
        Rows of logits that are reserved at most.
    kv_offload, op_offload
        Caches follow their layers; products with weights on the host run on a device.
    embeddings, pooling
        Vectors are wanted.
    pins
        Operations stay where builders want them; False for the library's own planner.
    copies
        Of inputs, that batches which overlap on several devices have.
    mla, attention_mib, fused_experts
        See `Batch`.
    drafts
        It is a second context, for the layers that predict further tokens.
    results
        See `Era`.
    """

    cache: CacheSettings
    outputs: int
    kv_offload: bool = True
    op_offload: bool = True
    embeddings: bool = False
    pooling: str = "none"
    pins: bool = True
    copies: int = 1
    mla: int = 0
    attention_mib: int = 0
    fused_experts: bool = False
    drafts: bool = False
    results: Literal["causal", "either", "both"] = "both"


@dataclass(frozen=True, slots=True)
class Context:
    """What a context takes.

    Attributes
    ----------
    keys_values, states
        Bytes of caches and of recurrent states by buffer.
    keys, stored
        Bytes of keys in all buffers, and of keys and values, without what backends add.
    compute
        Bytes of compute buffers by buffer.
    output
        Bytes of the buffer of results on the host, for the sequences at start.
    flash_attn
        Whether attention runs without scores in memory.
    peaks
        What lies in each compute buffer when it is fullest: bytes, and what it is.
    inputs
        Bytes of the buffer of inputs on the host, where they have one.
    splits, nodes
        Of the graph for a whole batch.
    """

    keys_values: Mapping[str, int]
    keys: int
    stored: int
    states: Mapping[str, int]
    compute: Mapping[str, int]
    peaks: Mapping[str, tuple[tuple[int, str], ...]]
    output: int
    flash_attn: bool
    splits: int
    nodes: int
    inputs: int = 0


def cache_buffers(model: Model, kv_offload: bool, drafts: bool = False, kept: bool = False) -> list[Buffer]:
    """Where each layer's cache goes; see `cached_layers`."""
    found = []
    places = model.places.layers
    for run in range(len(runs(cached_layers(model.architecture, drafts, kept)))):
        device = places[run % len(places)]
        on_device = kv_offload and device is not None
        place = model.backends[device].place if on_device and device is not None else "CPU"
        found.append(Buffer(place, device if on_device else None, weights=False))
    return found


def context(model: Model, settings: ContextSettings, era: Era) -> Context:
    """What a context of a model takes."""
    cache = settings.cache.of(model.meta, model.architecture)
    settings = replace(settings, cache=cache)
    buffers = cache_buffers(model, settings.kv_offload, settings.drafts, settings.cache.keeps_drafts)
    tokens = min(cache.cells * cache.streams, cache.ubatch)
    outputs = min(tokens, settings.outputs)
    sequences = _computed_sequences(cache, era)
    rounded = -(-tokens // sequences) * sequences
    reserved = _reserve(model, settings, era, buffers, rounded, outputs, sequences)
    if era.one_buffer:
        compute, peaks = _planned_at_once(model, era, reserved)
    else:
        compute = {one.place: size for one, size in zip(model.backends, reserved.bytes, strict=True)}
        peaks = {one.place: peak for one, peak in zip(model.backends, reserved.peaks, strict=True)}
    if era.margin:
        for place, size in compute.items():
            compute[place] = size + size // _MARGIN
            peaks[place] = (*peaks[place], (size // _MARGIN, "margin"))
    if settings.pins and sequences > 1 and model.meta.architecture in _ONE_IS_WORSE:
        # Buffers that were reserved for all sequences grow to what one of them needs.
        alone = _reserve(model, settings, era, buffers, rounded, outputs, 1)
        for one, size, peak in zip(model.backends, alone.bytes, alone.peaks, strict=True):
            if size > compute[one.place]:
                compute[one.place], peaks[one.place] = size, peak
    caches = layer_caches(model.architecture, cache, buffers, settings.drafts)
    rows = {"one": 1, "batch": settings.outputs, "sequences": cache.sequences}
    return Context(
        _sum(model, caches, buffers, LayerCache.keys_values),
        _stored(caches, LayerCache.keys),
        _stored(caches, LayerCache.keys_values),
        _sum(model, caches, buffers, LayerCache.states),
        compute,
        peaks,
        _output_bytes(model, settings, rows[era.output_rows]),
        cache.flash_attn,
        reserved.splits,
        reserved.nodes,
        4 * sum(input_parts(model, cache, era)),
    )


def _planned_at_once(
    model: Model, era: Era, reserved: Reserved
) -> tuple[dict[str, int], dict[str, tuple[tuple[int, str], ...]]]:
    """Compute buffers of builds without a scheduler: one on the host, and one as large on the main device."""
    size, peak = reserved.bytes[0], reserved.peaks[0]
    main = model.split.main if model.split is not None and model.split.main is not None else 0
    device, host = model.backends[main].place, model.backends[-1].place
    compute = {host: size + era.plan_bytes}
    peaks = {host: ((era.plan_bytes, "structures of a graph"), *peak)}
    offloads = any(place is not None for place in (*model.places.layers, model.places.output))
    if offloads and not model.backends[main].maps_files:
        compute[device], peaks[device] = size, peak
    return compute, peaks


def input_parts(model: Model, cache: CacheSettings, era: Era) -> tuple[int, ...]:
    """Elements of all that a graph can be given, where that has a buffer of its own.

    Tokens and their positions, vectors, a mask, shifts of positions; later also means of sequences, first tokens of
    them, and positions of cells.
    """
    if not era.inputs_apart:
        return ()
    tokens, cells = cache.ubatch, cache.cells
    parts = (2 * tokens, tokens * model.architecture.hidden_size, tokens * cells, cells)
    return parts if era.inputs_apart == "plain" else (*parts, tokens * tokens, tokens, cells)


def cached_bytes(model: Model, settings: ContextSettings) -> dict[str, int]:
    """Bytes of keys and values by buffer."""
    buffers = cache_buffers(model, settings.kv_offload, settings.drafts, settings.cache.keeps_drafts)
    cache = settings.cache.of(model.meta, model.architecture)
    caches = layer_caches(model.architecture, cache, buffers, settings.drafts)
    return _sum(model, caches, buffers, LayerCache.keys_values)


def flash_attention(model: Model, settings: ContextSettings, era: Era) -> bool:
    """Whether flash attention lands on each layer's own device, which is when `auto` chooses it."""
    cache = settings.cache.of(model.meta, model.architecture)
    tried = replace(settings, cache=replace(cache, flash_attn=True))
    buffers = cache_buffers(model, settings.kv_offload, settings.drafts, settings.cache.keeps_drafts)
    sequences = _computed_sequences(cache, era)
    net = _network(model, tried, era, buffers, cache.sequences, cache.sequences, sequences)
    families.build(net)
    _scheduler(model, settings, era).assign(net.nodes, net.leafs)
    return all(node.backend == net.devices[node.layer] for node in net.nodes if node.op == "flash_attn_ext")


def _scheduler(model: Model, settings: ContextSettings, era: Era, copies: int = 1) -> Scheduler:
    backends = (Processor(plans_all=True),) if era.one_buffer else model.backends
    return Scheduler(
        backends,
        copies,
        settings.op_offload and era.offloads_products,
        era.copies_all_inputs,
        era.ignores_sinks,
        era.copies_first,
        era.reuses_views,
    )


def _reserve(
    model: Model,
    settings: ContextSettings,
    era: Era,
    buffers: Sequence[Buffer],
    tokens: int,
    outputs: int,
    sequences: int,
) -> Reserved:
    kept: dict[int, int] = {}
    while True:
        net = _network(model, settings, era, buffers, tokens, outputs, sequences, kept)
        families.build(net)
        reserved = _scheduler(model, settings, era, settings.copies).reserve(net.nodes, net.leafs, net.folds)
        if not reserved.kept:
            return reserved
        kept |= reserved.kept


def _network(
    model: Model,
    settings: ContextSettings,
    era: Era,
    buffers: Sequence[Buffer],
    tokens: int,
    outputs: int,
    sequences: int,
    kept: Mapping[int, int] = MappingProxyType({}),
) -> Network:
    cache = settings.cache
    host = len(model.backends) - 1
    layers = model.architecture.layers
    placed, order = model.places.layers, runs(layers)
    if len(order) > len(placed):
        placed = tuple(placed[block] for block in order)
    devices = [host if device is None else device for device in (*placed, model.places.output)]
    if era.one_buffer:
        host, devices = 0, [0] * len(devices)
    batch = Batch(
        tokens,
        sequences,
        outputs,
        cache.sequences,
        cache.flash_attn,
        cache.unified,
        settings.embeddings,
        settings.pooling,
        model.architecture.causal,
        not settings.kv_offload,
        model.places.fully_offloaded,
        settings.pins,
        cache.cells,
        cache.transposed,
        1 + cache.snapshots,
        settings.mla,
        settings.attention_mib,
        settings.fused_experts,
        settings.drafts,
    )
    return Network(
        model.meta,
        (*layers, *model.architecture.mtp_layers) if settings.drafts else layers,
        Weights(model.named),
        layer_caches(model.architecture, cache, buffers, settings.drafts),
        batch,
        era,
        devices,
        host,
        model.alike,
        kept,
        len(layers),
    )


def _computed_sequences(cache: CacheSettings, era: Era) -> int:
    """How many sequences the graph is reserved for."""
    return cache.sequences if era.reserves_all or not cache.unified else 1


def _sum(
    model: Model,
    caches: Sequence[LayerCache],
    buffers: Sequence[Buffer],
    tensors: Callable[[LayerCache], Sequence[Node]],
) -> dict[str, int]:
    """Bytes of tensors of caches by buffer, as the backends allocate them."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    for cache, buffer in zip(caches, buffers, strict=True):
        if id(cache) in seen:
            continue
        seen.add(id(cache))
        backend = model.backends[-1 if buffer.device is None else buffer.device]
        for tensor in tensors(cache):
            held = backend.bytes(cache.allocated(tensor))
            size = -(-held // backend.alignment) * backend.alignment
            sizes[buffer.place] = sizes.get(buffer.place, 0) + size
    return sizes


def _stored(caches: Sequence[LayerCache], tensors: Callable[[LayerCache], Sequence[Node]]) -> int:
    """Bytes of tensors of caches, each once."""
    return sum(
        one.bytes for cache in {id(cache): cache for cache in caches}.values() for one in tensors(cache)
    )


def _output_bytes(model: Model, settings: ContextSettings, rows: int) -> int:
    """Rows of logits, and vectors where they are wanted (`output_reserve`)."""
    return (
        rows * 4 * output_width(model.architecture, settings.embeddings, settings.pooling, settings.results)
    )


def output_width(architecture: Architecture, embeddings: bool, pooling: str, results: str) -> int:
    """Elements of a row of results: logits, and vectors where they are wanted or where a decoder reads them."""
    causal = architecture.causal and not architecture.encoder_only
    logits = {"causal": causal, "either": not embeddings, "both": True}[results]
    pooled = pooling != "none" and not (results == "both" or (results == "causal" and causal))
    vectors = (embeddings and not pooled) or architecture.model_type == "t5"
    return architecture.vocab_size * logits + architecture.hidden_size * vectors
