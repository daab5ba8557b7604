"""The caches of a model's layers (`llama-kv-cache.cpp`, `llama-kv-cache-iswa.cpp`, `llama-memory-recurrent.cpp`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from willfit.architectures.gguf.metadata import Metadata
from willfit.architectures.mixers import Attention, CompressedAttention, LatentAttention, Mixer, Recurrent
from willfit.architectures.model import Architecture, Layer
from willfit.engines.llama_cpp.cache.loops import runs
from willfit.engines.llama_cpp.graph.network import Compressor, LayerCache
from willfit.engines.llama_cpp.graph.tensor import Buffer, Node
from willfit.ggml_types import GGML_TYPES

#: Cells of a cache are a multiple of this.
PADDING = 256
#: Order of the Hadamard matrix that values are rotated with, and the least one for keys.
_ROTATION = 64
#: Architectures that keep keys and values for the layers that draft, too, which the model itself never reads.
_DRAFTS_KEPT = frozenset(("bailingmoe3",))
#: Architectures whose indexers have a whole cache of one head, with values that nothing reads.
_INDEX_VALUES = frozenset(("minimax-m3",))
#: Kind of the mixer whose convolution keeps inputs of its own, beside those of the layer's state.
_MEMORY = "n-gram memory"


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """What decides how large the caches are.

    Attributes
    ----------
    cells
        Tokens that a stream of a full cache holds.
    sequences
        How many sequences there are.
    unified
        They share one stream.
    ubatch
        Tokens that are computed at once.
    type_k, type_v
        Types of keys and of values.
    flash_attn
        Attention without scores in memory.
    transposed
        Values are transposed, and as wide in all layers as in the widest: flash attention was off from the start.
    latent_values
        Values of latent attention are cached, too: its latents.
    full_windows
        Layers with windows keep whole sequences.
    rotates, rotates_all
        Quantized caches are rotated; those of layers with windows and of unequal width, too.
    snapshots
        Earlier states that are kept beside the newest.
    keeps_drafts
        Layers that draft have caches beside the model's.
    ahead
        Tokens that a layer with a window holds beside its window; None for `ubatch`.
    step
        Cells of layers with windows are a multiple of this.
    whole_hybrids
        Each sequence of a model with attention and states has the cells of all.
    keys_by_head
        Rows of keys are allocated head by head, and values as one row.
    """

    cells: int
    sequences: int
    unified: bool
    ubatch: int
    type_k: str = "F16"
    type_v: str = "F16"
    flash_attn: bool = True
    transposed: bool = False
    latent_values: bool = False
    full_windows: bool = False
    rotates: bool = True
    rotates_all: bool = True
    snapshots: int = 0
    keeps_drafts: bool = False
    ahead: int | None = None
    step: int = PADDING
    whole_hybrids: bool = False
    keys_by_head: bool = False

    def of(self, meta: Metadata, architecture: Architecture) -> CacheSettings:
        """These settings as a model's caches follow them: compressed entries are never shared by sequences."""
        mixers = (mixer for layer in architecture.layers for mixer in layer.mixers)
        kinds = {type(mixer) for mixer in mixers}
        cells, whole = self.cells, self.whole_hybrids
        if whole and Recurrent in kinds and len(kinds) > 1:
            cells, whole = self.cells * self.streams, False
        kv_heads = meta.values.get(f"{meta.architecture}.attention.head_count_kv")
        uneven = isinstance(kv_heads, tuple | list) and len(set(kv_heads)) > 1
        return replace(
            self,
            cells=cells,
            whole_hybrids=whole,
            unified=self.unified and CompressedAttention not in kinds,
            rotates=self.rotates and (self.rotates_all or not uneven),
        )

    @property
    def streams(self) -> int:
        """Sequences with cells of their own."""
        return 1 if self.unified else self.sequences

    def window_cells(self, window: int) -> int:
        """Tokens that a stream holds in a layer with a window."""
        if self.full_windows:
            return self.cells
        ahead = self.ubatch if self.ahead is None else self.ahead
        needed = min(self.cells, window * (self.sequences if self.unified else 1) + ahead)
        return -(-needed // self.step) * self.step


def cached_layers(architecture: Architecture, drafts: bool = False, kept: bool = False) -> tuple[Layer, ...]:
    """Layers that the caches are made for (`llama_model::create_memory`).

    Parameters
    ----------
    drafts
        For a context of the layers that predict further tokens, in which the others keep nothing.
    kept
        The model's own context keeps something for those layers, too.
    """
    layers = architecture.layers
    if drafts:
        own = [replace(layer, mixers=_unindexed(layer)) for layer in architecture.mtp_layers]
        return (*(replace(layer, mixers=()) for layer in layers), *own)
    kept = kept or architecture.model_type in _DRAFTS_KEPT
    return (*layers, *architecture.mtp_layers) if kept else layers


def _unindexed(layer: Layer) -> tuple[Mixer, ...]:
    """What a layer that drafts attends with: all that is cached, without an indexer."""
    return tuple(
        replace(mixer, index_dim=0) if isinstance(mixer, LatentAttention) else mixer for mixer in layer.mixers
    )


def layer_caches(
    architecture: Architecture, settings: CacheSettings, buffers: Sequence[Buffer], drafts: bool = False
) -> list[LayerCache]:
    """What each layer keeps.

    Parameters
    ----------
    buffers
        Where each layer's cache goes; one for each time that a layer is run.
    drafts
        See `cached_layers`.
    """
    made: list[LayerCache] = []
    layers = cached_layers(architecture, drafts, settings.keeps_drafts)
    attentions = [m for layer in layers for m in layer.mixers if isinstance(m, Attention)]
    recurrent = any(isinstance(mixer, Recurrent) for layer in layers for mixer in layer.mixers)
    widest = max((mixer.kv_heads * mixer.value_dim for mixer in attentions), default=0)
    for index, buffer in zip(runs(layers), buffers, strict=True):
        cache = LayerCache()
        if not layers[index].mixers and not recurrent and settings.transposed and not drafts:
            # A layer without attention is given values as wide as those of the others.
            cache.v = _tensor(settings.type_v, widest, settings, settings.cells, buffer)
        for mixer in layers[index].mixers:
            if isinstance(mixer, Attention):
                if mixer.keeps_cache and not mixer.shares_cache:
                    _keys_and_values(cache, mixer, settings, buffer, widest)
                if mixer.index_dim:
                    cache.index = _tensor(settings.type_k, mixer.index_dim, settings, settings.cells, buffer)
                    if architecture.model_type in _INDEX_VALUES:
                        width = mixer.value_dim
                        cache.index_values = _tensor(settings.type_v, width, settings, settings.cells, buffer)
            elif isinstance(mixer, LatentAttention):
                cache.windowed = bool(mixer.window)
                cache.cells = settings.window_cells(mixer.window) if mixer.window else settings.cells
                cache.k = _tensor(settings.type_k, mixer.latent_per_token, settings, cache.cells, buffer)
                if settings.latent_values:
                    cache.v = _tensor(settings.type_v, mixer.kv_rank, settings, settings.cells, buffer)
                if mixer.index_dim:
                    cache.index = _tensor(settings.type_k, mixer.index_dim, settings, settings.cells, buffer)
            elif isinstance(mixer, CompressedAttention):
                _compressed(cache, mixer, settings, buffer)
            elif isinstance(mixer, Recurrent):
                rows = settings.sequences * (1 + settings.snapshots)
                inputs = mixer.conv_channels * (mixer.conv_kernel - 1) if mixer.conv_channels else 0
                kept = Node("none", "F32", (inputs, rows, 1, 1), buffer=buffer)
                if mixer.kind == _MEMORY:
                    cache.p = kept
                    continue
                cache.r = kept
                cache.s = Node("none", "F32", (mixer.recurrent, rows, 1, 1), buffer=buffer)
        made.append(cache)
    if settings.rotates:
        _rotate(made, attentions, settings)
    _share(architecture, made)
    return made


def _keys_and_values(
    cache: LayerCache, mixer: Attention, settings: CacheSettings, buffer: Buffer, widest: int
) -> None:
    reach = mixer.window or mixer.chunk
    cache.windowed = bool(reach)
    cache.cells = settings.window_cells(reach) if reach else settings.cells
    values = mixer.kv_heads * mixer.value_dim if not settings.transposed else widest
    cache.k = _tensor(settings.type_k, mixer.kv_heads * mixer.head_dim, settings, cache.cells, buffer)
    cache.v = _tensor(settings.type_v, values, settings, cache.cells, buffer)
    cache.head = mixer.head_dim if settings.keys_by_head else 0


def _compressed(
    cache: LayerCache, mixer: CompressedAttention, settings: CacheSettings, buffer: Buffer
) -> None:
    """A window of keys, entries for tokens before it, and tokens of entries that are not complete."""
    rotated = settings.rotates and settings.rotates_all and quantized(settings.type_k)
    cache.windowed = True
    cache.cells = settings.window_cells(mixer.window)
    cache.k = _tensor(settings.type_k, mixer.head_dim, settings, cache.cells, buffer)
    cache.rotates_k = _order(mixer.head_dim) if rotated else 0
    if not mixer.ratio:
        return
    cache.compressor = _compressor(mixer, mixer.head_dim, settings, buffer, False, cache.rotates_k)
    if mixer.index_dim:
        order = _order(mixer.index_dim)
        cache.index_compressor = _compressor(mixer, mixer.index_dim, settings, buffer, True, order)


def _compressor(
    mixer: CompressedAttention,
    width: int,
    settings: CacheSettings,
    buffer: Buffer,
    indexes: bool,
    rotation: int,
) -> Compressor:
    spans = 2 if mixer.overlaps else 1
    cells = -(-max(1, -(-settings.cells // mixer.ratio)) // PADDING) * PADDING
    rows = spans * mixer.ratio
    planes = settings.streams * (1 + settings.snapshots)
    sums, scores = (Node("none", "F32", (spans * width, rows, planes, 1), buffer=buffer) for _ in range(2))
    return Compressor(
        _tensor(settings.type_k, width, settings, cells, buffer),
        sums,
        scores,
        cells,
        mixer.ratio,
        mixer.overlaps,
        rows,
        indexes,
        rotation,
    )


def _order(width: int) -> int:
    """Order of the Hadamard matrix for keys of a width; 0 if there is none."""
    if width % _ROTATION:
        return 0
    order = _ROTATION
    while width % (2 * order) == 0:
        order *= 2
    return order


def _tensor(type: str, width: int, settings: CacheSettings, cells: int, buffer: Buffer) -> Node:
    return Node("none", type, (width, cells, settings.streams, 1), buffer=buffer)


def _rotate(caches: list[LayerCache], attentions: Sequence[Attention], settings: CacheSettings) -> None:
    """Quantized keys and values are rotated where all layers of a cache have heads of one width."""
    for windowed in (False, True) if settings.rotates_all else (False,):
        group = [m for m in attentions if bool(m.window or m.chunk) is windowed and not m.shares_cache]
        keys, values = {m.head_dim for m in group}, {m.value_dim for m in group}
        first = attentions[0] if attentions else None
        k = v = 0
        if first and len(keys) == 1 and quantized(settings.type_k) and first.head_dim % _ROTATION == 0:
            k = _order(next(iter(keys)))
        if first and len(values) == 1 and quantized(settings.type_v) and first.value_dim % _ROTATION == 0:
            v = _ROTATION
        for cache in caches:
            if cache.v is not None and cache.windowed is windowed:
                cache.rotates_k, cache.rotates_v = k, v


def _share(architecture: Architecture, caches: list[LayerCache]) -> None:
    """Layers without a cache of their own read that of an earlier layer of their kind."""
    last: dict[bool, LayerCache] = {}
    for index, layer in enumerate(architecture.layers):
        for mixer in layer.mixers:
            if isinstance(mixer, Attention) and mixer.keeps_cache:
                windowed = bool(mixer.window or mixer.chunk)
                if mixer.shares_cache:
                    if windowed in last:
                        caches[index] = last[windowed]
                else:
                    last[windowed] = caches[index]


def quantized(type: str) -> bool:
    """Whether a type packs several elements into a block."""
    return GGML_TYPES[type].block > 1
