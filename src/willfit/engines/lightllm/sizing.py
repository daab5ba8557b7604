"""LightLLM's start-up in its own order: weights, request tables (since 1.2), slots, graphs, a full batch of prompts."""

from __future__ import annotations

from dataclasses import dataclass

from willfit.architectures.model import Architecture
from willfit.engines.activations import widest_layer_elements
from willfit.engines.base import Machine, Subject
from willfit.engines.borrowed import activation_term, graph_terms, library_terms
from willfit.engines.leftover import free_beside
from willfit.engines.lightllm.settings import Resolved, Settings, resolve
from willfit.engines.lightllm.slots import layers_with_slots, slot_bytes
from willfit.engines.lightllm.sources import SOURCES
from willfit.engines.lightllm.tables import request_tables
from willfit.engines.lightllm.weights import draft_bytes, runs_encoders, weights_term
from willfit.engines.ranks import runtime_dtype
from willfit.errors import BadInput
from willfit.estimate import Demand, Term, between, exact
from willfit.quantities import DTYPE_BYTES

#: Rotary tables reach this many positions beyond the model's limit (`models/llama/model.py`).
_SPARE_POSITIONS = 128 * 1024


@dataclass(frozen=True, slots=True)
class Sizing:
    """What LightLLM allocates on the card with the least memory.

    Attributes
    ----------
    before, after
        Terms that exist when free memory is read, and those that come after the slots.
    slot_bytes
        Bytes of a token.
    left_free_bytes
        What it leaves for everything else.
    pool_bytes, pool_interval
        Bytes for slots; negative if nothing is left.
    """

    resolved: Resolved
    dtype: str
    before: tuple[Term, ...]
    after: tuple[Term, ...]
    slot_bytes: int
    free_bytes: int
    left_free_bytes: int
    pool_bytes: int
    pool_interval: tuple[int, int]

    @property
    def slots(self) -> int:
        """Tokens that the pool holds."""
        return max(0, self.pool_bytes) // self.slot_bytes if self.slot_bytes else 0

    def demand(self, settings: Settings, requests: int) -> Demand:
        """Slots of the requests; also for as long a request as is allowed, and more than a batch of prompts.

        `common/basemodel/basemodel.py: _check_mem_size`. Data-parallel groups have slots of their own.
        """
        length = self.resolved.length
        each = -(-requests // settings.dp)
        words = f"{each:,} request{'s' if each > 1 else ''} of {length:,} tokens"
        words += f" in each of {settings.dp} groups" if settings.dp > 1 else ""
        tokens = each * length
        if self.resolved.era.tables_before and tokens <= self.resolved.batch_max_tokens:
            tokens = self.resolved.batch_max_tokens + 1
            words += f", and more than the {tokens - 1:,} of --batch_max_tokens"
        return Demand(words, tokens * self.slot_bytes, self.pool_bytes, *self.pool_interval)


def size_up(subject: Subject, machine: Machine, settings: Settings) -> Sizing:
    """Go through LightLLM's start-up.

    Raises
    ------
    BadInput
        If there are fewer devices than ranks, or they cannot be divided into so many groups.
    """
    given = len(machine.devices)
    if given < settings.tp:
        raise BadInput(
            f"{settings.tp} ranks need {settings.tp} devices, {given} given", f"write --gpu {settings.tp}x..."
        )
    if settings.tp % settings.dp:
        raise BadInput(f"{settings.tp} cards cannot be divided into {settings.dp} groups (--tp, --dp)")
    device = min(machine.devices[: settings.tp], key=lambda one: one.usable_bytes or 0)
    architecture, resolved = subject.architecture, resolve(settings, subject.architecture)
    dtype = runtime_dtype(subject, settings.data_type, device)
    slot = slot_bytes(architecture, settings, dtype)
    encoders = bool(architecture.towers) and runs_encoders(settings, resolved)
    before = [
        weights_term(subject, settings, resolved, dtype),
        # Encoders run in a process of their own.
        *library_terms(device, settings.tp, 2 if encoders else 1),
    ]
    after = _after(architecture, settings, resolved, dtype)
    (before if resolved.era.tables_before else after).append(
        request_tables(architecture, settings, resolved, dtype)
    )

    total = device.usable_bytes or 0
    left = int(total * (1 - resolved.mem_fraction))
    free = free_beside(total, before)
    pool, low, high = (size - left for size in (free.bytes, free.low, free.high))
    if settings.max_total_token_num is not None:
        pool = low = high = settings.max_total_token_num * slot
    after += _transfer(architecture, settings, resolved, slot, pool)
    draft = draft_bytes(subject, settings, dtype)
    if draft:
        reference = SOURCES.cite("drafts", settings.version)
        formula = f"{draft} B of {settings.draft_models} draft model(s); embedding and head are shared"
        after.append(exact("draft_weights", draft, formula, reference))
    return Sizing(resolved, dtype, tuple(before), tuple(after), slot, free.bytes, left, pool, (low, high))


def _after(architecture: Architecture, settings: Settings, resolved: Resolved, dtype: str) -> list[Term]:
    """What comes after the slots: graphs, and the check with a full batch of prompts."""
    size, ranks = DTYPE_BYTES[dtype], settings.group_ranks
    tokens, elements = resolved.batch_max_tokens, widest_layer_elements(architecture, ranks)
    rows, logits = max(resolved.graph_sizes, default=1), architecture.logits_per_row
    terms = [
        activation_term(
            {
                "layers": (tokens * elements * size, f"{tokens} tokens x {elements} elements x {size} B"),
                "logits": (rows * logits * (size + 4), f"{rows} rows x {logits} logits x {size + 4} B"),
            },
            0,
            SOURCES.cite("forward", settings.version),
        )
    ]
    if architecture.ropes:
        width = sum(rope.dim for rope in architecture.ropes)
        positions = architecture.max_positions + _SPARE_POSITIONS
        formula = f"{positions} positions x {width} x {size} B"
        least, whole = architecture.max_positions * width * size, positions * width * size
        reference = SOURCES.cite("rotary tables", settings.version)
        terms.append(between("buffers", whole, least, whole, formula, reference))
    terms += graph_terms(architecture, len(resolved.graph_sizes), SOURCES.cite("graphs", settings.version))
    return terms


def _transfer(
    architecture: Architecture, settings: Settings, resolved: Resolved, slot: int, pool: int
) -> list[Term]:
    """The buffer through which caches go to or come from another node."""
    layers = layers_with_slots(architecture)
    if settings.run_mode == "normal" or not layers:
        return []
    if resolved.era.paged_transfer:
        pages, tokens = settings.pd_kv_page_num, settings.pd_kv_page_size
        # Heads of all ranks of the group: at most as many as they have together.
        size = pages * tokens * slot
        formula = f"{pages} pages x {tokens} tokens x {slot} B x {settings.group_ranks} ranks"
        reference = SOURCES.cite("transfer", settings.version)
        most = size * settings.group_ranks
        return [between("transfer_buffer", most, size, most, formula, reference)]
    size = max(0, pool) // layers
    formula = f"{size} B of one of {layers} layers for all slots"
    return [exact("transfer_buffer", size, formula, SOURCES.cite("transfer", settings.version))]
