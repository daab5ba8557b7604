"""TensorRT-LLM's start-up in its own order: load weights, run a full batch, give the cache a share of what is left.

`_torch/pyexecutor/_util.py: KvCacheCreator` and `resource_manager.py: KVCacheManager`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from willfit.architectures.mixers import Attention, LatentAttention, Mixer
from willfit.architectures.model import Architecture
from willfit.engines.activations import widest_layer_elements
from willfit.engines.base import Machine, Subject
from willfit.engines.borrowed import (
    activation_term,
    graph_terms,
    library_terms,
    weights_term,
)
from willfit.engines.leftover import free_beside
from willfit.engines.paged import PagedCache, WindowPool
from willfit.engines.ranks import state_bytes_on_rank
from willfit.engines.sharding import on_stage
from willfit.engines.tensorrt_llm.settings import Resolved, Settings, resolve
from willfit.engines.tensorrt_llm.sources import SOURCES
from willfit.errors import BadInput
from willfit.estimate import Demand, Term
from willfit.quantities import DTYPE_BYTES, ceil_div, dtype_name

#: What a cache can be in; built engines also have one of int8.
_CACHE_DTYPES = ("bf16", "fp16", "fp8_e4m3", "nvfp4")
_BUILT_DTYPES = (*_CACHE_DTYPES, "int8")

#: Sixteenths of a byte for one element: NVFP4 has half a byte and an 8-bit scale for every 16.
_NVFP4 = 9

#: fp32 logits of all slots that a built engine's runtime and decoder may hold beside those that it outputs.
_DECODER_COPIES = 4

#: fp32 scales of an indexer's keys, one for so many elements.
_INDEX_BLOCK = 128


@dataclass(frozen=True, slots=True)
class Sizing:
    """What TensorRT-LLM decides and allocates at start-up, on the fullest rank.

    Attributes
    ----------
    terms
        What is counted before the cache is sized.
    total_bytes
        What the device has.
    pool_bytes, pool_interval
        Bytes for the cache before rounding to blocks; negative if nothing is left.
    limited
        The cache is as large as was asked for, not as what is left allows.
    states_bytes
        Recurrent states of `max_batch_size` sequences, which come out of the cache's bytes.
    groups
        Groups of ranks with sequences of their own.
    """

    resolved: Resolved
    kv_dtype: str
    terms: tuple[Term, ...]
    total_bytes: int
    pool_bytes: int
    pool_interval: tuple[int, int]
    limited: bool
    cache: PagedCache
    states_bytes: int
    groups: int

    def demand(self, sequences: int) -> Demand:
        """What `sequences` sequences of the longest length need of the pool."""
        length, sequences = self.resolved.max_seq_len, ceil_div(sequences, self.groups)
        words = f"{sequences:,} sequence{'s' if sequences > 1 else ''} of {length:,} tokens"
        return Demand(
            words + (f" on each of {self.groups} ranks" if self.groups > 1 else ""),
            self.cache.bytes_for(length, sequences),
            self.pool_bytes,
            *self.pool_interval,
        )


def size_up(subject: Subject, machine: Machine, settings: Settings) -> Sizing:
    """Go through the start-up.

    Raises
    ------
    BadInput
        If there are fewer devices than ranks, the model has no cache that is known, or the length of a sequence is
        not known.
    """
    architecture, ranks = subject.architecture, settings.sharding.ranks
    if len(machine.devices) < ranks:
        given = len(machine.devices)
        raise BadInput(f"{ranks} ranks need {ranks} devices, {given} given", f"write --gpu {ranks}x...")
    resolved = resolve(settings, architecture)
    kv_dtype = kv_dtype_of(subject, settings, resolved.backend)
    cache = cache_of(architecture, settings, resolved, kv_dtype)
    total = min(device.usable_bytes or 0 for device in machine.devices[:ranks])
    terms = (
        weights_term(
            subject,
            settings.sharding,
            SOURCES.cite("weights", settings.version),
            maybe_copies=_latent_copies(architecture, settings),
            mtp=settings.draft_layers > 0,
        ),
        _activations(architecture, settings, resolved),
        *library_terms(machine.devices[0], ranks),
        # The warm-up captures them before memory is measured.
        *graph_terms(architecture, len(resolved.graph_sizes), SOURCES.cite("graphs", settings.version)),
    )
    fraction = resolved.free_gpu_memory_fraction
    free = free_beside(total, terms)
    states = resolved.max_batch_size * _state_bytes(architecture, settings)
    # States are taken off the budget; managers before that held them before the budget was struck.
    sizes = [int(free.bytes * fraction) - states, int(free.low * fraction) - states]
    sizes.append(int((free.high - states) * fraction))
    per_token = sum(pool.token_bytes for pool in cache.pools)
    limits = [settings.max_gpu_total_bytes] if settings.max_gpu_total_bytes else []
    if settings.max_tokens is not None:
        limits.append(settings.max_tokens * per_token)
    limit = min(limits, default=None)
    limited = limit is not None and limit <= sizes[1]
    pool, pool_low, pool_high = (size if limit is None else min(size, limit) for size in sizes)
    return Sizing(
        resolved, kv_dtype, terms, total, pool, (pool_low, pool_high), limited, cache, states, settings.groups
    )


def kv_dtype_of(subject: Subject, settings: Settings, backend: str = "pytorch") -> str:
    """Dtype of the cache: as asked, else what the checkpoint's quantization says, else the model's.

    Raises
    ------
    BadInput
        If there is no such cache.
    """
    asked = settings.kv_cache_dtype.lower()
    if asked == "auto":
        asked = subject.recipe.kv_cache_dtype or "bf16"
    name = "nvfp4" if asked == "nvfp4" else dtype_name(asked)
    if name not in (_CACHE_DTYPES if backend == "pytorch" else _BUILT_DTYPES):
        raise BadInput(f"TensorRT-LLM has no cache in {asked}", "it has fp8, nvfp4 and the model's dtype")
    return name


def _sized(elements: int, kv_dtype: str) -> int:
    if kv_dtype == "nvfp4":
        return ceil_div(elements * _NVFP4, 16)
    return elements * DTYPE_BYTES[kv_dtype]


def _token_bytes(mixer: Mixer, ranks: int, kv_dtype: str) -> int:
    """Bytes of one token in one layer on a rank; heads are repeated where there are more ranks."""
    if isinstance(mixer, LatentAttention):
        index = mixer.index_dim + 4 * ceil_div(mixer.index_dim, _INDEX_BLOCK)
        return _sized(mixer.latent_per_token, kv_dtype) + (index if mixer.index_dim else 0)
    if isinstance(mixer, Attention) and mixer.keeps_cache and not mixer.shares_cache:
        return _sized(ceil_div(mixer.kv_heads, ranks) * (mixer.head_dim + mixer.value_dim), kv_dtype)
    return 0


def cache_of(architecture: Architecture, settings: Settings, resolved: Resolved, kv_dtype: str) -> PagedCache:
    """How the cache of a rank is divided.

    A pattern of several windows gives each window its own pool, and all pools the same bytes
    (`calculate_max_num_blocks_for_vswa`).

    Raises
    ------
    BadInput
        If no layer keeps a cache whose rule is known.
    """
    ranks, stages = settings.cache_ranks, settings.pipeline_parallel_size
    pattern = [window if window < resolved.max_seq_len else 0 for window in settings.max_attention_window]
    sizes: Counter[int] = Counter()
    keeping = deepest = 0
    for layer in architecture.layers:
        size = sum(_token_bytes(mixer, ranks, kv_dtype) for mixer in layer.mixers)
        if size:
            sizes[pattern[keeping % len(pattern)] if pattern else 0] += size
            keeping += 1
            deepest = max(deepest, size)
    if not sizes:
        raise BadInput(
            f"what TensorRT-LLM caches for {architecture.model_type!r} models is not known",
            "ask with --engine minimum",
        )
    layers = len(architecture.layers)
    held = {window: on_stage(size, layers, stages) for window, size in sizes.items()}
    # Layers that draft see everything, and are on the last stage.
    held[min(held)] += settings.draft_layers * deepest
    return PagedCache(
        tuple(WindowPool(window, size) for window, size in sorted(held.items())),
        resolved.tokens_per_block,
        partial_block=resolved.era.partial_block,
    )


def _state_bytes(architecture: Architecture, settings: Settings) -> int:
    """Recurrent states of one sequence on a rank (`mamba_cache_manager.py`), a state more for each drafted token."""
    states = state_bytes_on_rank(architecture, "bf16", "fp32", settings.cache_ranks)
    stage = on_stage(states, len(architecture.layers), settings.pipeline_parallel_size)
    return stage * (1 + settings.draft_tokens)


def _latent_copies(architecture: Architecture, settings: Settings) -> int:
    """Up-projections of latent attention that may be kept a second time, transposed (`modules/attention.py`)."""
    size = 0
    for layer in architecture.layers:
        for mixer in layer.mixers:
            if isinstance(mixer, LatentAttention):
                heads = ceil_div(mixer.heads, settings.cache_ranks)
                size += heads * (mixer.nope_dim + mixer.value_dim) * mixer.kv_rank * 2
    return on_stage(size, len(architecture.layers), settings.pipeline_parallel_size)


def _activations(architecture: Architecture, settings: Settings, resolved: Resolved) -> Term:
    """The peak of a batch of prompts that fills `max_num_tokens`; logits are made for the last token of each.

    A built engine has logits for each of `max_batch_size` slots in its output and in its decoder. Of how many copies,
    and whether the PyTorch backend's sampler keeps one, is not established.
    """
    elements = widest_layer_elements(architecture, settings.cache_ranks)
    tokens, logits = resolved.max_num_tokens, architecture.logits_per_row
    slots = resolved.max_batch_size * settings.max_beam_width
    if resolved.backend == "tensorrt":
        rows, copies = slots, _DECODER_COPIES
    else:
        rows = ceil_div(tokens, min(tokens, max(1, resolved.max_seq_len - 1))) * settings.max_beam_width
        copies = 1
    return activation_term(
        {
            "layers": (2 * tokens * elements, f"{tokens} tokens x {elements} elements x 2 B"),
            "logits": (rows * logits * (2 + 4), f"{rows} rows x {logits} logits x (2 + 4) B"),
        },
        copies * slots * logits * 4,
        f"{SOURCES.cite('profile', settings.version)}; {slots} slots of the sampler",
    )
