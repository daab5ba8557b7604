"""TGI's start-up in its own order: load weights, warm up with prompts, give the cache what is left but a margin.

`server/text_generation_server/models/flash_causal_lm.py: warmup` (3.3.7).
"""

from __future__ import annotations

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
from willfit.engines.sharding import Sharding, rank_bytes
from willfit.engines.tgi.eras import Era, era_for
from willfit.engines.tgi.prefill import prefill_tokens
from willfit.engines.tgi.settings import (
    BLOCKS,
    Kernels,
    Settings,
    default_length,
    graph_sizes,
    kernels,
    prompt_length,
)
from willfit.engines.tgi.sources import SOURCES
from willfit.errors import BadInput
from willfit.estimate import Demand, Term, exact
from willfit.quantities import DTYPE_BYTES, MIB, ceil_div, dtype_name

#: One buffer that all of flashinfer's kernels share (`layers/attention/flashinfer.py: get_workspace`).
_WORKSPACE = 128 * MIB


@dataclass(frozen=True, slots=True)
class Sizing:
    """What TGI decides and allocates at start-up, on each rank.

    Attributes
    ----------
    kernels
        Which attention runs.
    prefill_tokens, max_total_tokens
        Tokens of the warm-up, and of the longest sequence.
    wiggle
        Share of the memory that is used.
    inside, outside
        Terms that the cache has to leave room for, and what is left to the margin.
    total_bytes
        What the device has.
    pool_bytes, pool_interval
        Bytes for the cache, before rounding to blocks.
    warm_bytes
        The cache's blocks during the warm-up.
    """

    era: Era
    kernels: Kernels
    prefill_tokens: int
    max_total_tokens: int
    wiggle: float
    inside: tuple[Term, ...]
    outside: tuple[Term, ...]
    total_bytes: int
    pool_bytes: int
    pool_interval: tuple[int, int]
    cache: PagedCache
    warm_bytes: int

    def demand(self, sequences: int) -> Demand:
        """What `sequences` sequences of the longest length need of the pool."""
        plural = "s" if sequences > 1 else ""
        return Demand(
            f"{sequences:,} sequence{plural} of {self.max_total_tokens:,} tokens",
            self.cache.bytes_for(self.max_total_tokens, sequences),
            self.pool_bytes,
            *self.pool_interval,
        )


def size_up(subject: Subject, machine: Machine, settings: Settings) -> Sizing:
    """Go through the start-up.

    Raises
    ------
    BadInput
        If there are fewer devices than shards, or the model has no cache that is known.
    """
    architecture, ranks = subject.architecture, settings.num_shard
    if len(machine.devices) < ranks:
        given = len(machine.devices)
        raise BadInput(f"{ranks} shards need {ranks} devices, {given} given", f"write --gpu {ranks}x...")
    device = min(machine.devices[:ranks], key=lambda one: one.usable_bytes or 0)
    era = era_for(settings.version)
    attention = kernels(settings, architecture, device, era)
    cache = cache_of(architecture, settings, BLOCKS[attention], cache_dtype(subject, settings, era))
    prefill = prefill_tokens(subject, device, settings, era)
    inside = (
        weights_term(
            subject,
            Sharding(ranks),
            SOURCES.cite("weights", settings.version),
            copies=_second_table(subject, ranks),
        ),
        _activations(architecture, settings, era, prefill),
        *library_terms(device, ranks),
        *_workspace(attention, settings),
    )
    sizes = len(graph_sizes(settings, era))
    outside = graph_terms(architecture, sizes, SOURCES.cite("warm-up", settings.version))
    total = device.usable_bytes or 0
    wiggle = era.wiggle if settings.wiggle_room is None else settings.wiggle_room
    warm = _warm_tokens(architecture, settings, era, prefill, cache.block) * cache.pools[0].token_bytes
    allowed = total * settings.cuda_memory_fraction

    def pool(free: int) -> int:
        """What is free once the warm-up is over, and what the warm-up's own blocks took."""
        taken = total - free
        if era.share_of == "total":
            return warm + max(0, int(allowed * wiggle) - taken - warm)
        return warm + max(0, int((allowed - taken - warm) * wiggle))

    free = free_beside(total, inside)
    size = pool(free.bytes)
    length = default_length(settings, architecture, era)
    if length is None:
        limit = architecture.max_positions
        held = cache.tokens(size)
        length = max(1, min(held, limit) if limit else held)
    return Sizing(
        era,
        attention,
        prefill,
        length,
        wiggle,
        inside,
        outside,
        total,
        size,
        (pool(free.low), pool(free.high)),
        cache,
        warm,
    )


def _token_elements(mixer: Mixer, ranks: int) -> int:
    """Elements of one token in one layer; a single key/value head is repeated on every rank.

    Latent attention is cached as the heads that are made of it, keys and values as wide as the wider
    (`models/__init__.py: get_model`).
    """
    if isinstance(mixer, LatentAttention):
        return 2 * (mixer.heads // ranks) * max(mixer.nope_dim + mixer.rope_dim, mixer.value_dim)
    if isinstance(mixer, Attention):
        heads = mixer.kv_heads // ranks if mixer.kv_heads > 1 else mixer.kv_heads
        return 2 * heads * mixer.head_dim
    return 0


def cache_dtype(subject: Subject, settings: Settings, era: Era) -> str:
    """Dtype of the cache: as asked (`--kv-cache-dtype fp8_e4m3fn`), else the checkpoint's, else the model's 16 bits.

    A checkpoint is asked only if it is one of compressed-tensors (`models/__init__.py: get_model`).

    Raises
    ------
    BadInput
        If there is no such cache.
    """
    asked, recipe = settings.kv_cache_dtype, subject.recipe
    if asked is None:
        by_checkpoint = era.checkpoint_cache and recipe.method == "compressed-tensors"
        return "fp8_e4m3" if by_checkpoint and (recipe.kv_cache_dtype or "").startswith("fp8") else "bf16"
    name = dtype_name(asked.removesuffix("fn"))
    if name not in ("bf16", "fp16", "fp8_e4m3", "fp8_e5m2"):
        raise BadInput(f"TGI has no cache in {asked}", "it has fp8_e4m3fn, fp8_e5m2 and the model's dtype")
    return name


def cache_of(architecture: Architecture, settings: Settings, block: int, dtype: str) -> PagedCache:
    """The cache: all layers keep all tokens, whatever their windows.

    Raises
    ------
    BadInput
        If a layer keeps something else than keys and values.
    """
    size = DTYPE_BYTES[dtype]
    elements = 0
    for layer in architecture.layers:
        for mixer in layer.mixers:
            found = _token_elements(mixer, settings.num_shard)
            if not found:
                raise BadInput(
                    f"what TGI caches for {mixer.kind} on {settings.num_shard} shard(s) is not known",
                    "ask with --engine minimum",
                )
            elements += found
    if not elements:
        raise BadInput("a model without attention has no cache in TGI", "ask with --engine minimum")
    return PagedCache((WindowPool(0, elements * size),), block)


def _second_table(subject: Subject, ranks: int) -> int:
    """A head that shares the token table is loaded a second time, because the table gets a row of zeros."""
    if not subject.architecture.tied:
        return 0
    tables = {id(tensor) for tensor in subject.architecture.embeddings if tensor.kind == "embedding"}
    sizes = [rank_bytes(line, Sharding(ranks)) for line in subject.lines if id(line.tensor) in tables]
    return max(sizes, default=0)


def _activations(architecture: Architecture, settings: Settings, era: Era, tokens: int) -> Term:
    """The peak of the warm-up's prompts.

    Where logits of all tokens are made, a log of 2.2.0 shows about twice what the rule gives; what else is held then is
    not established, so as much again as they take in fp32 may come on top.
    """
    elements, logits = widest_layer_elements(architecture, settings.num_shard), architecture.logits_per_row
    if era.all_logits:
        # Logits and their logarithmic softmax, both in the model's dtype.
        rows, each = tokens, 2 + 2
    else:
        rows, each = (
            ceil_div(tokens, min(prompt_length(settings, architecture, era) or tokens, tokens)),
            2 + 4,
        )
    return activation_term(
        {
            "layers": (2 * tokens * elements, f"{tokens} tokens x {elements} elements x 2 B"),
            "logits": (rows * logits * each, f"{rows} rows x {logits} logits x {each} B"),
        },
        4 * rows * logits if era.all_logits else 0,
        SOURCES.cite("warm-up", settings.version),
    )


def _workspace(attention: Kernels, settings: Settings) -> tuple[Term, ...]:
    if attention != "flashinfer":
        return ()
    reference = SOURCES.cite("workspace", settings.version)
    return (exact("workspace", _WORKSPACE, f"{_WORKSPACE} B in one buffer", reference),)


def _warm_tokens(architecture: Architecture, settings: Settings, era: Era, tokens: int, block: int) -> int:
    """Tokens of the blocks that the warm-up's prompts take, with room for their longest answers.

    `backends/v3/src/client/grpc_client.rs: warmup`.
    """
    prompt = min(prompt_length(settings, architecture, era) or tokens, tokens)
    length = default_length(settings, architecture, era) or 0
    return ceil_div(tokens, prompt) * ceil_div(max(prompt, length - 1) + settings.speculate, block) * block
