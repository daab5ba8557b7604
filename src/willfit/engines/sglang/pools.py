"""How SGLang divides what is left after loading: full tokens, window tokens, states, requests.

`mem_cache/kv_cache_configurator.py`, `model_executor/pool_configurator.py` (0.5.23).
"""

from __future__ import annotations

from dataclasses import dataclass

from willfit.engines.sglang.cells import Cells
from willfit.engines.sglang.defaults import Resolved
from willfit.engines.sglang.settings import Settings
from willfit.quantities import MIB, round_up

#: Requests for each time that the pool holds the longest sequence, and the limits of the default.
_REQUESTS_PER_CONTEXT, _LEAST_REQUESTS, _MOST_REQUESTS = 512, 2048, 4096

#: Positions of a row of the request table beyond the longest sequence (`allocation_sizing.py`).
_ROW_HEADROOM = 4

#: Tokens behind the window that are not yet let go (`environ.py: SGLANG_SWA_EVICTION_INTERVAL`).
_EVICTION_INTERVAL = 128

#: State slots of a request where prefixes are cached (`MAMBA_CACHE_SIZE_MAX_RUNNING_REQUESTS_RATIO`).
_CACHED_SLOTS = 3

#: What models with encoders reserve for embeddings of images (`environ.py: SGLANG_VLM_CACHE_SIZE_MB`).
MULTIMODAL_BYTES = 100 * MIB


@dataclass(frozen=True, slots=True)
class Pools:
    """The pools of a rank.

    Attributes
    ----------
    tokens, window_tokens
        Tokens of the full pool, which the log calls `max_total_num_tokens`, and of the window layers' pool.
    states
        Slots for states, the padding slot not counted; 0 without such layers.
    state_slots
        Slots that a running request takes.
    padding
        State slots that are allocated beside these.
    requests
        Requests that run at once: `max_running_requests`.
    """

    cells: Cells
    page: int
    chunk: int
    tokens: int
    window_tokens: int
    states: int
    state_slots: int
    padding: int
    requests: int

    @property
    def cache_bytes(self) -> int:
        """Bytes of the token pools, a page of padding in each."""
        size = (self.tokens + self.page) * self.cells.full
        return size + (self.window_tokens + self.page) * self.cells.window

    @property
    def state_bytes(self) -> int:
        """Bytes of the state pool."""
        return (self.states + self.padding) * self.cells.state if self.cells.state else 0

    def window_need(self, length: int, sequences: int) -> int:
        """Window tokens of some sequences, one of them in the middle of a prompt."""
        held = min(length, self.cells.reach + _EVICTION_INTERVAL)
        return sequences * round_up(held, self.page) + min(length, self.chunk)

    def shares(self, length: int, sequences: int) -> list[tuple[str, int, int]]:
        """(pool, bytes that sequences of a length need, bytes that it has) of each pool."""
        found = []
        if self.cells.full:
            need = sequences * round_up(length, self.page)
            found.append(("tokens", need * self.cells.full, self.tokens * self.cells.full))
        if self.cells.window:
            need = self.window_need(length, sequences)
            found.append(("window tokens", need * self.cells.window, self.window_tokens * self.cells.window))
        if self.cells.state:
            need = sequences * self.state_slots
            found.append(("states", need * self.cells.state, self.states * self.cells.state))
        return found

    def excess(self, length: int, sequences: int) -> float:
        """By how much sequences of a length are too much for the tightest pool, as a share of it."""
        return max(
            (need / max(1, have) - 1 for _, need, have in self.shares(length, sequences)), default=-1.0
        )


def divide(available: int, cells: Cells, resolved: Resolved, settings: Settings) -> Pools:
    """Divide `available` bytes."""
    available = max(0, available)
    slots = _state_slots(resolved, settings)
    states, available = _states(available, cells, resolved, settings, slots)
    page = resolved.page_size
    tokens, window_tokens = _tokens(available, cells, resolved, settings)
    return Pools(
        cells=cells,
        page=page,
        chunk=resolved.chunk,
        tokens=tokens,
        window_tokens=window_tokens,
        states=states,
        state_slots=slots,
        padding=1 if resolved.era.state_padding else 0,
        requests=_requests(tokens, states, slots, cells, resolved, settings),
    )


def _tokens(available: int, cells: Cells, resolved: Resolved, settings: Settings) -> tuple[int, int]:
    """(tokens, window tokens): the window pool has a share of the full pool's tokens, or what requests need.

    `SWARequestCapPoolConfigurator`: with a fixed number of requests and no cached prefixes the need is known.
    """
    page, ratio = resolved.page_size, resolved.swa_full_tokens_ratio
    limit = settings.max_total_tokens
    if not cells.full:
        return 0, 0
    if not cells.window:
        tokens = available // cells.full
        return min(tokens, limit or tokens) // page * page, 0
    if resolved.max_running_requests and settings.disable_radix_cache and resolved.era.half_of_tokens:
        window = _request_cap(cells, resolved, settings)
        tokens = max(0, available - window * cells.window) // cells.full
        return min(tokens, limit or tokens) // page * page, window
    tokens = int(available / (cells.full + ratio * cells.window))
    tokens = min(tokens, limit or tokens) // page * page
    return tokens, int(tokens * ratio) // page * page


def _request_cap(cells: Cells, resolved: Resolved, settings: Settings) -> int:
    page, drafts = resolved.page_size, max(1, settings.speculative_num_draft_tokens)
    each = cells.reach + _EVICTION_INTERVAL * drafts + page
    each += page if not settings.speculative_algorithm else 2 * drafts
    requests = max(1, (resolved.max_running_requests or 1) // settings.attn_dp_size)
    chunks = 1 if settings.disable_overlap_schedule else 2
    return round_up(each * requests + chunks * resolved.chunk + page, page)


def _state_slots(resolved: Resolved, settings: Settings) -> int:
    """Slots of a request: its own, those of cached prefixes, and those that track them while batches overlap."""
    if settings.disable_radix_cache:
        return 1
    strategy = settings.mamba_radix_cache_strategy
    if strategy == "auto":
        strategy = "extra_buffer" if resolved.era.extra_buffers else "no_buffer"
    overlapping = 1 if settings.disable_overlap_schedule else 2
    return _CACHED_SLOTS + {"no_buffer": 0, "extra_buffer_lazy": 1}.get(strategy, overlapping)


def _states(
    available: int, cells: Cells, resolved: Resolved, settings: Settings, slots: int
) -> tuple[int, int]:
    """(state slots, bytes left for tokens), states of drafted tokens taken off."""
    if not cells.state:
        return 0, available
    padding = 1 if resolved.era.state_padding else 0
    drafts = settings.speculative_num_draft_tokens if settings.speculative_algorithm else 0
    requests = max(1, (resolved.max_running_requests or 1) // settings.attn_dp_size)
    if settings.max_mamba_cache_size is not None:
        count = settings.max_mamba_cache_size // settings.attn_dp_size
    elif settings.disable_radix_cache and resolved.max_running_requests is not None:
        count = requests
    elif resolved.era.joint_states:
        ratio = settings.mamba_full_memory_ratio
        budget = int(available * ratio / (1 + ratio)) if cells.full else available
        count = max(0, int((budget / cells.state - padding * (1 + drafts)) / (1 + drafts / slots)))
    else:
        ratio = settings.mamba_full_memory_ratio
        rest = available - requests * drafts * cells.state
        budget = int(rest * ratio / (1 + ratio)) if cells.full else rest
        count = max(0, budget // cells.state)
    held = min(requests, count // slots) + padding if resolved.era.joint_states else requests
    return count, max(0, available - (count + padding) * cells.state - held * drafts * cells.state)


def _requests(
    tokens: int, states: int, slots: int, cells: Cells, resolved: Resolved, settings: Settings
) -> int:
    """`resolve_max_num_reqs`: as asked, else by how often the pool holds the longest sequence."""
    estimated = int(tokens / resolved.context_length * _REQUESTS_PER_CONTEXT)
    estimated = max(min(estimated, _MOST_REQUESTS), _LEAST_REQUESTS)
    requests = estimated
    if resolved.max_running_requests is not None:
        requests = max(1, resolved.max_running_requests // settings.attn_dp_size)
    if resolved.era.half_of_tokens and cells.full:
        requests = min(requests, tokens // 2)
    if cells.state:
        requests = min(requests, states // slots)
    if resolved.max_running_requests is None:
        requests += resolved.era.request_padding
    return requests


def table_bytes(pools: Pools, resolved: Resolved, settings: Settings) -> int:
    """Bytes of the table that maps the tokens of each request to slots: int32, a padding row, some headroom."""
    row = resolved.context_length + _ROW_HEADROOM + settings.speculative_num_draft_tokens
    return (pools.requests + 1) * row * 4
