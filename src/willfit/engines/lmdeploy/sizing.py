"""LMDeploy's start-up in its own order: load weights, read what is free, set aside, divide the rest into blocks."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.mixers import LatentAttention
from willfit.architectures.model import Architecture
from willfit.engines.activations import widest_layer_elements
from willfit.engines.base import Machine, Subject
from willfit.engines.borrowed import activation_term, graph_terms, library_terms
from willfit.engines.leftover import free_beside
from willfit.engines.lmdeploy.cache import Blocks, blocks_of
from willfit.engines.lmdeploy.eras import Era, era_for
from willfit.engines.lmdeploy.layout import Layout, layout_of
from willfit.engines.lmdeploy.settings import Backend, Settings, backend_of, batch_size, capture_sizes
from willfit.engines.lmdeploy.sources import SOURCES
from willfit.engines.lmdeploy.weights import weights_term
from willfit.engines.ranks import runtime_dtype
from willfit.estimate import Demand, Term, exact
from willfit.quantities import DTYPE_BYTES, ceil_div

#: States that the PyTorch engine keeps beside those of the batch (`_get_state_cache_mem`).
_SPARE_STATES = 2

#: The PyTorch engine halves `max_prefill_token_num` until this many blocks fit, and gives up below the least
#: (`_get_runtime_size`, `_get_num_gpu_blocks`).
_ENOUGH_BLOCKS, _LEAST_BLOCKS = 16, 3


@dataclass(frozen=True, slots=True)
class Sizing:
    """What LMDeploy decides and allocates at start-up, on the card with the least memory.

    Attributes
    ----------
    before, after
        Terms that exist when free memory is read, and those that come after the cache.
    free_bytes
        What is free then.
    reserved_bytes, prefill_tokens
        What the PyTorch engine sets aside, and the tokens of a prefill step that it was left with.
    pool_bytes, pool_interval
        Bytes for the cache, before rounding to blocks; at most 0 if nothing is left.
    sensitivity
        By how many bytes the pool shrinks for each byte that is taken before it.
    """

    era: Era
    backend: Backend
    dtype: str
    layout: Layout
    batch: int
    blocks: Blocks
    before: tuple[Term, ...]
    after: tuple[Term, ...]
    free_bytes: int
    reserved_bytes: int
    prefill_tokens: int
    ratio: float
    pool_bytes: int
    pool_interval: tuple[int, int]
    sensitivity: float

    @property
    def block_count(self) -> int:
        """Blocks of the pool."""
        return max(0, self.pool_bytes) // self.blocks.bytes if self.blocks.bytes else 0

    @property
    def padding_blocks(self) -> int:
        """Blocks that no sequence gets."""
        return self.era.padding_blocks if self.backend == "pytorch" else 0

    def bytes_for(self, tokens: int) -> int:
        """What a sequence takes of the pool; states are in it for TurboMind only."""
        state = self.blocks.state_bytes if self.backend == "turbomind" else 0
        return self.blocks.count(tokens) * self.blocks.bytes + state

    def demand(self, sequences: int, tokens: int) -> Demand:
        """What `sequences` sequences of `tokens` tokens need of the pool, shared out over groups of ranks."""
        groups = self.layout.replicas
        sequences = ceil_div(sequences, groups)
        words = f"{sequences:,} sequence{'s' if sequences > 1 else ''} of {tokens:,} tokens"
        return Demand(
            words + (f" in each of {groups} groups" if groups > 1 else ""),
            sequences * self.bytes_for(tokens) + self.padding_blocks * self.blocks.bytes,
            self.pool_bytes,
            *self.pool_interval,
        )


@dataclass(frozen=True, slots=True)
class _Pool:
    """How the cache is sized from what is free."""

    settings: Settings
    era: Era
    backend: Backend
    blocks: Blocks
    total: int
    ratio: float
    reserved_rows: int
    vocabulary: int
    workspace: int

    def reserved(self, prefill: int) -> int:
        """What the PyTorch engine sets aside for scores (`pytorch/engine/executor/base.py: _get_runtime_size`)."""
        if self.backend == "turbomind":
            return 0
        return (prefill + self.reserved_rows) * self.vocabulary * self.era.reserved_bytes + self.workspace

    def prefill(self, free: int) -> int:
        """Tokens of a prefill step."""
        tokens = self.settings.max_prefill_token_num
        while self.backend == "pytorch" and tokens > 1:
            count = int((free - self.reserved(tokens)) * self.ratio) // max(1, self.blocks.bytes)
            if not _LEAST_BLOCKS <= count < _ENOUGH_BLOCKS:
                break
            tokens //= 2
        return tokens

    @property
    def fixed(self) -> int | None:
        """The pool where free memory does not decide it."""
        if self.backend == "pytorch" and self.settings.num_gpu_blocks:
            return self.settings.num_gpu_blocks * self.blocks.bytes
        if self.ratio > 1:
            return int(self.ratio) * self.blocks.bytes
        if self.backend == "turbomind" and self.era.ratio_of == "total":
            return int(self.total * self.ratio)
        return None

    def size(self, free: int) -> int:
        """Bytes of the pool; negative if nothing is left."""
        if self.fixed is not None:
            return self.fixed
        return int((free - self.reserved(self.prefill(free))) * self.ratio)


def size_up(subject: Subject, machine: Machine, settings: Settings) -> Sizing:
    """Go through LMDeploy's start-up.

    Raises
    ------
    BadInput
        If there are fewer devices than ranks, or a setting is one that the engine would not take.
    """
    architecture, era = subject.architecture, era_for(settings.version)
    backend = backend_of(settings, architecture)
    layout = layout_of(settings, backend, len(machine.devices))
    device = min(machine.devices[: layout.devices], key=lambda one: one.usable_bytes or 0)
    dtype = runtime_dtype(subject, settings.dtype, device)
    batch = batch_size(settings, device, era)
    blocks = blocks_of(architecture, settings, backend, dtype, era, layout)
    ratio = era.ratio if settings.cache_max_entry_count is None else settings.cache_max_entry_count
    before = [
        weights_term(subject, settings, backend, dtype, layout.sharding),
        *library_terms(device, layout.devices),
    ]
    if backend == "pytorch" and blocks.state_bytes:
        slots = batch + _SPARE_STATES + settings.prefix_cache_state_budget
        formula = f"{slots} slots x {blocks.state_bytes} B"
        reference = SOURCES.cite("states", settings.version)
        before.append(exact("recurrent_state", slots * blocks.state_bytes, formula, reference))

    total = device.usable_bytes or 0
    length = settings.session_len or architecture.max_positions
    if backend == "turbomind" and era.tables_before:
        before += _token_tables(era, batch, length, settings.version)
    rows = era.reserved_rows * batch
    workspace = era.index_workspace if backend == "pytorch" and _has_indexer(architecture) else 0
    pool = _Pool(settings, era, backend, blocks, total, ratio, rows, architecture.vocab_size, workspace)
    free = free_beside(total, before)
    prefill = pool.prefill(free.bytes)
    after = _after(subject, settings, backend, dtype, batch, prefill, layout)
    if backend == "turbomind" and not era.tables_before:
        # Sequences are no longer than what the cache holds.
        held = max(0, pool.size(free.bytes)) // blocks.bytes * blocks.length if blocks.bytes else 0
        after += _token_tables(era, batch, min(length, held) if length else held, settings.version)
    return Sizing(
        era=era,
        backend=backend,
        dtype=dtype,
        batch=batch,
        blocks=blocks,
        before=tuple(before),
        after=tuple(after),
        layout=layout,
        free_bytes=free.bytes,
        reserved_bytes=pool.reserved(prefill),
        prefill_tokens=prefill,
        ratio=ratio,
        pool_bytes=pool.size(free.bytes),
        pool_interval=(pool.size(free.low), pool.size(free.high)),
        sensitivity=0.0 if pool.fixed is not None else ratio,
    )


def _has_indexer(architecture: Architecture) -> bool:
    mixers = (mixer for layer, _ in architecture.blocks for mixer in layer.mixers)
    return any(isinstance(mixer, LatentAttention) and mixer.index_dim for mixer in mixers)


def _token_tables(era: Era, batch: int, length: int, version: str) -> list[Term]:
    """The tokens of all sequences that can run at once, on the card."""
    size = era.token_tables * batch * length * 4
    formula = f"{era.token_tables} x {batch} sequences x {length} tokens x 4 B"
    return [exact("request_tables", size, formula, SOURCES.cite("token tables", version))]


def _after(
    subject: Subject,
    settings: Settings,
    backend: Backend,
    dtype: str,
    batch: int,
    prefill: int,
    layout: Layout,
) -> list[Term]:
    """What runs beside the cache."""
    architecture, size = subject.architecture, DTYPE_BYTES[dtype]
    elements, logits = widest_layer_elements(architecture, layout.attention), architecture.logits_per_row
    terms = [
        activation_term(
            {
                "layers": (prefill * elements * size, f"{prefill} tokens x {elements} elements x {size} B"),
                # Scores of a step's sequences, in the model's dtype and in fp32 for sampling.
                "logits": (batch * logits * (size + 4), f"{batch} rows x {logits} logits x {size + 4} B"),
            },
            0,
            SOURCES.cite(f"forward {backend}", settings.version),
        )
    ]
    if backend == "pytorch" and not settings.eager_mode:
        asked = settings.cudagraph_capture_batch_sizes
        sizes = sum(size <= batch for size in asked) if asked else len(capture_sizes(batch))
        terms += graph_terms(architecture, sizes, SOURCES.cite("graphs", settings.version))
    return terms
