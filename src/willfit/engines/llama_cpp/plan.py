"""All buffers of one context: weights, caches, what is computed, results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from willfit.architectures.gguf.metadata import Metadata
from willfit.architectures.model import Architecture
from willfit.checkpoints.gguf import GgufHeader
from willfit.engines.llama_cpp.cache.layers import CacheSettings, cached_layers, layer_caches
from willfit.engines.llama_cpp.cache.loops import runs
from willfit.engines.llama_cpp.eras import Era
from willfit.engines.llama_cpp.graph import families
from willfit.engines.llama_cpp.graph.network import Batch, LayerCache, Network
from willfit.engines.llama_cpp.graph.scheduler import Backend, Reserved, Scheduler
from willfit.engines.llama_cpp.graph.tensor import Buffer, Node
from willfit.engines.llama_cpp.loading.layers import LayerPlaces
from willfit.engines.llama_cpp.loading.rows import RowSplit
from willfit.engines.llama_cpp.loading.weights import Loader, Placed, Weights, alike, buffer_bytes, by_name

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
    named
        Tensors by name; see `loading.weights.by_name`.
    alike
        Of each layer a number, the same where tensors are alike.
    spread
        The least and the most that the weights may take, by what is counted: other than 1 where a mix is not known.
    ordered
        The order of tensors in the file is known.
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
    ordered: bool = True

    @property
    def meta(self) -> Metadata:
        """The header's metadata."""
        return Metadata(self.header.metadata)

    @property
    def bytes(self) -> dict[str, int]:
        """Bytes of each buffer of weights."""
        return buffer_bytes(self.placed, self.backends, self.split)

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
) -> Model:
    """Place a model's tensors.

    Parameters
    ----------
    bounds
        What all tensors take at least and at most, if that is open.
    ordered
        See `Model`.
    """
    placed = tuple(loader.place(header, architecture.tied, skipped))
    own = sum(tensor.bytes for tensor in header.tensors)
    spread = (bounds[0] / own, bounds[1] / own) if bounds and own else (1.0, 1.0)
    named = by_name(placed, len(loader.backends) - 1)
    layers = alike(placed, len(architecture.layers))
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
        ordered,
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


@dataclass(frozen=True, slots=True)
class Context:
    """What a context takes.

    Attributes
    ----------
    keys_values, states
        Bytes of caches and of recurrent states by buffer.
    keys
        Bytes of keys in all buffers.
    compute
        Bytes of compute buffers by buffer.
    output
        Bytes of the buffer of results on the host, for the sequences at start.
    flash_attn
        Whether attention runs without scores in memory.
    peaks
        What lies in each compute buffer when it is fullest: bytes, and what it is.
    splits, nodes
        Of the graph for a whole batch.
    """

    keys_values: Mapping[str, int]
    keys: int
    states: Mapping[str, int]
    compute: Mapping[str, int]
    peaks: Mapping[str, tuple[tuple[int, str], ...]]
    output: int
    flash_attn: bool
    splits: int
    nodes: int


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
    compute = {one.place: size for one, size in zip(model.backends, reserved.bytes, strict=True)}
    peaks = {one.place: peak for one, peak in zip(model.backends, reserved.peaks, strict=True)}
    if settings.pins and sequences > 1 and model.meta.architecture in _ONE_IS_WORSE:
        # Buffers that were reserved for all sequences grow to what one of them needs.
        alone = _reserve(model, settings, era, buffers, rounded, outputs, 1)
        for one, size, peak in zip(model.backends, alone.bytes, alone.peaks, strict=True):
            if size > compute[one.place]:
                compute[one.place], peaks[one.place] = size, peak
    caches = layer_caches(model.architecture, cache, buffers, settings.drafts)
    return Context(
        _sum(model, caches, buffers, LayerCache.keys_values),
        sum(_sum(model, caches, buffers, LayerCache.keys).values()),
        _sum(model, caches, buffers, LayerCache.states),
        compute,
        peaks,
        _output_bytes(model, settings, cache.sequences if era.trims_outputs else cache.ubatch),
        cache.flash_attn,
        reserved.splits,
        reserved.nodes,
    )


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
    return Scheduler(
        model.backends,
        copies,
        settings.op_offload and era.offloads_products,
        era.copies_all_inputs,
        era.ignores_sinks,
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
    devices = [host if device is None else device for device in (*model.places.layers, model.places.output)]
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
    layers = model.architecture.layers
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
            size = -(-backend.bytes(tensor) // backend.alignment) * backend.alignment
            sizes[buffer.place] = sizes.get(buffer.place, 0) + size
    return sizes


def _output_bytes(model: Model, settings: ContextSettings, rows: int) -> int:
    """Rows of logits, and vectors where they are wanted (`output_reserve`)."""
    return rows * 4 * output_width(model.architecture, settings.embeddings)


def output_width(architecture: Architecture, embeddings: bool) -> int:
    """Elements of a row of results: logits, and vectors where they are wanted or where a decoder reads them."""
    vectors = embeddings or architecture.model_type == "t5"
    return architecture.vocab_size + (architecture.hidden_size if vectors else 0)
