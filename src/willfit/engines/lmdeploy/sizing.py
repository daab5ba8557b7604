"""LMDeploy's start-up in its own order: load weights, read what is free, set aside, divide the rest into blocks."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.calibration import constant
from willfit.engines.activations import widest_layer_elements
from willfit.engines.base import Machine, Subject
from willfit.engines.lmdeploy.cache import Blocks, blocks_of
from willfit.engines.lmdeploy.eras import Era, era_for
from willfit.engines.lmdeploy.settings import Backend, Settings, backend_of, batch_size, capture_sizes
from willfit.engines.lmdeploy.sources import SOURCES
from willfit.engines.lmdeploy.weights import weights_term
from willfit.engines.ranks import runtime_dtype
from willfit.errors import BadInput
from willfit.estimate import Demand, Term, between, combined, exact
from willfit.quantities import DTYPE_BYTES

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
        """What `sequences` sequences of `tokens` tokens need of the pool."""
        return Demand(
            f"{sequences:,} sequence{'s' if sequences > 1 else ''} of {tokens:,} tokens",
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

    def reserved(self, prefill: int) -> int:
        """What the PyTorch engine sets aside for logits (`pytorch/engine/executor/base.py: _get_runtime_size`)."""
        if self.backend == "turbomind":
            return 0
        return (prefill + self.reserved_rows) * self.vocabulary * self.era.reserved_bytes

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
    given = len(machine.devices)
    if given < settings.tp:
        raise BadInput(
            f"{settings.tp} ranks need {settings.tp} devices, {given} given", f"write --gpu {settings.tp}x..."
        )
    device = min(machine.devices[: settings.tp], key=lambda one: one.usable_bytes or 0)
    architecture, era = subject.architecture, era_for(settings.version)
    backend = backend_of(settings, architecture)
    dtype = runtime_dtype(subject, settings.dtype, device)
    batch = batch_size(settings, device, era)
    blocks = blocks_of(architecture, settings, backend, dtype)
    ratio = era.ratio if settings.cache_max_entry_count is None else settings.cache_max_entry_count
    before = [weights_term(subject, settings, backend, dtype), *_libraries(settings.tp)]
    if backend == "pytorch" and blocks.state_bytes:
        slots = batch + _SPARE_STATES + settings.prefix_cache_state_budget
        formula = f"{slots} slots x {blocks.state_bytes} B"
        reference = SOURCES.cite("states", settings.version)
        before.append(exact("recurrent_state", slots * blocks.state_bytes, formula, reference))

    total = device.usable_bytes or 0
    rows = era.reserved_rows * batch
    pool = _Pool(settings, era, backend, blocks, total, ratio, rows, architecture.vocab_size)
    spread = constant("device.visible_ratio")
    visible = between("visible", 0, -int(total * (spread.high - 1)), -int(total * (spread.low - 1)))
    taken, taken_low, taken_high = combined([*before, visible])
    free = total - taken
    prefill = pool.prefill(free)
    return Sizing(
        era=era,
        backend=backend,
        dtype=dtype,
        batch=batch,
        blocks=blocks,
        before=tuple(before),
        after=_after(subject, settings, backend, dtype, batch, prefill),
        free_bytes=free,
        reserved_bytes=pool.reserved(prefill),
        prefill_tokens=prefill,
        ratio=ratio,
        pool_bytes=pool.size(free),
        pool_interval=(pool.size(total - taken_high), pool.size(total - taken_low)),
        sensitivity=0.0 if pool.fixed is not None else ratio,
    )


def _libraries(ranks: int) -> list[Term]:
    """What the driver and libraries hold when free memory is read."""
    context = constant("cuda.context")
    terms = [
        between(
            "context",
            int(context.value),
            int(context.low),
            int(context.high),
            f"{int(context.value)} B",
            context.reference,
        )
    ]
    spread = constant("vllm.non_torch.one_rank" if ranks == 1 else "vllm.non_torch.many_ranks")
    formula = f"{int(spread.value)} B of library workspaces of {ranks} rank(s)"
    reference = f"as measured for vLLM: {spread.reference}"
    terms.append(between("runtime", int(spread.value), int(spread.low), int(spread.high), formula, reference))
    return terms


def _after(
    subject: Subject, settings: Settings, backend: Backend, dtype: str, batch: int, prefill: int
) -> tuple[Term, ...]:
    """What runs beside the cache. No measurement of LMDeploy stands behind it, so the intervals are vLLM's."""
    architecture, size = subject.architecture, DTYPE_BYTES[dtype]
    elements = widest_layer_elements(architecture, settings.tp)
    model = prefill * elements * size
    # Scores of a step's sequences, in the model's dtype and in fp32 for sampling.
    scores = batch * architecture.logits_per_row * (size + 4)
    spread = constant("vllm.activation_ratio.v1")
    formula = (
        f"the largest of model: {prefill} tokens x {elements} elements x {size} B = {model}, "
        f"logits: {batch} rows x {architecture.logits_per_row} logits x {size + 4} B = {scores}"
    )
    peak = max(model, scores)
    source = SOURCES.cite(f"forward {backend}", settings.version)
    reference = f"{source}; interval as measured for vLLM: {spread.reference}"
    terms = [
        between("activations", peak, int(peak * spread.low), int(peak * spread.high), formula, reference)
    ]
    if backend == "pytorch" and not settings.eager_mode:
        graphs = constant("vllm.graphs_taken")
        layers, sizes = len(architecture.layers), len(capture_sizes(batch))
        count = layers * sizes
        formula = f"{layers} layers x {sizes} captured sizes x {graphs.value:.15g} B"
        reference = f"as measured for vLLM: {graphs.reference}"
        terms.append(
            between(
                "cuda_graphs",
                int(count * graphs.value),
                int(count * graphs.low),
                int(count * graphs.high),
                formula,
                reference,
            )
        )
    return tuple(terms)
