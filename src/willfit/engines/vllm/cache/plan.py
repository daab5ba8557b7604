"""How vLLM divides its cache into groups and blocks, and what it reports of it.

`v1/core/kv_cache_planning.py` (0.33), before 0.29 `v1/core/kv_cache_utils.py`. All layers draw blocks of one
size from one pool, so layers that need different numbers of blocks are put into groups of equally many layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from willfit.engines.vllm.cache.specs import CacheSpec
from willfit.engines.vllm.eras import Era
from willfit.engines.vllm.settings import Resolved
from willfit.quantities import ceil_div


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that share one block table."""

    specs: tuple[CacheSpec, ...]
    distinct: frozenset[CacheSpec] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Most layers are alike, and finding the longest context asks for the blocks of many lengths.
        object.__setattr__(self, "distinct", frozenset(_once(self.specs)))

    @property
    def page_bytes(self) -> int:
        """Bytes of one block over all layers of the group."""
        return sum(spec.page_bytes for spec in self.specs)

    def on_stage(self, stage: int) -> int:
        """Bytes of one block over the group's layers on a pipeline stage."""
        return sum(spec.page_bytes for spec in self.specs if spec.stage == stage)

    def blocks_per_request(self, length: int, resolved: Resolved) -> int:
        """Blocks that one sequence takes from this group."""
        return max(spec.blocks_per_request(length, resolved) for spec in self.distinct)

    def planned_blocks(self, length: int, resolved: Resolved) -> int:
        """Blocks that vLLM counts for one sequence in this group."""
        return max(spec.planned_blocks(length, resolved) for spec in self.distinct)


@dataclass(frozen=True, slots=True)
class CachePlan:
    """The cache of one rank.

    Attributes
    ----------
    groups
        Empty if the model keeps no cache.
    bytes_per_block
        Bytes that one block takes from the pool, on the pipeline stage where that is most: all have as many blocks.
    """

    groups: tuple[Group, ...]
    bytes_per_block: int
    resolved: Resolved

    def blocks_per_request(self, length: int) -> int:
        """Blocks that one sequence of `length` tokens needs over all groups."""
        return sum(group.blocks_per_request(length, self.resolved) for group in self.groups)

    def planned_blocks(self, length: int) -> int:
        """Blocks that vLLM counts for one sequence of `length` tokens, when it checks and reports its cache."""
        return sum(group.planned_blocks(length, self.resolved) for group in self.groups)

    def bytes_for(self, length: int, sequences: int = 1) -> int:
        """Bytes that sequences of `length` tokens need; what vLLM counts for one must be there in any case."""
        needed = max(self.blocks_per_request(length) * sequences, self.planned_blocks(length))
        return needed * self.bytes_per_block

    def blocks_in(self, pool_bytes: int) -> int:
        """Blocks of a pool."""
        return max(0, pool_bytes) // self.bytes_per_block if self.bytes_per_block else 0

    def usable_blocks(self, pool_bytes: int) -> int:
        """Blocks that sequences can use: newer versions keep one back as the null block."""
        return self.blocks_in(pool_bytes) - (1 if self.resolved.era.null_block else 0)

    def concurrency(self, blocks: int, length: int | None = None) -> float:
        """ "Maximum concurrency": how many sequences of `length` (max_model_len) tokens fit at once."""
        needed = self.planned_blocks(length or self.resolved.max_model_len)
        return blocks / needed if needed else float("inf")

    def reported_tokens(self, blocks: int) -> int:
        """The start-up log's "GPU KV cache size" in tokens, in the meaning of the engine's version."""
        if not self.groups:
            return 0
        smallest = min(spec.block_size for group in self.groups for spec in group.specs)
        match self.resolved.era.capacity:
            case "blocks":
                return blocks * smallest * self.resolved.context_shards
            case "per_group":
                return blocks // len(self.groups) * smallest * self.resolved.context_shards
            case "concurrency":
                return int(self.concurrency(blocks) * self.resolved.max_model_len)

    def longest(self, pool_bytes: int, limit: int, sequences: int = 1) -> int:
        """Longest length at which `sequences` sequences fit into a pool; 0 if not even one token does.

        The engine's own bisection (`estimate_max_model_len`): needed blocks never fall as the length grows.
        """
        blocks = self.usable_blocks(pool_bytes)
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            if self.blocks_per_request(middle) * sequences <= blocks:
                low = middle
            else:
                high = middle - 1
        return low


def plan_cache(specs: Sequence[CacheSpec], resolved: Resolved, hybrid_manager: bool = True) -> CachePlan:
    """Group layers and size a block.

    Parameters
    ----------
    specs
        One per layer and cache.
    hybrid_manager
        False: window and chunk layers are kept in full beside full-attention layers, in one group.
    """
    if not specs:
        return CachePlan((), 0, resolved)
    if any(spec.kind == "full" for spec in specs):
        kinds = _kept_whole(resolved.era, hybrid_manager)
        specs = [spec.kept_whole() if spec.kind in kinds else spec for spec in specs]
    if _uniform(specs):
        group = Group(tuple(specs))
        return CachePlan((group,), bytes_per_block((group,)), resolved)
    groups = _groups_of_equal_size(_unified(specs), resolved.era.group_slack)
    return CachePlan(groups, bytes_per_block(groups), resolved)


def bytes_per_block(groups: Sequence[Group]) -> int:
    """The widest group on the stage where it is widest (`_project_kv_cache_groups_to_worker`)."""
    stages = 1 + max(spec.stage for group in groups for spec in group.specs)
    if stages == 1:
        return max(group.page_bytes for group in groups)
    return max(group.on_stage(stage) for stage in range(stages) for group in groups)


def _kept_whole(era: Era, hybrid_manager: bool) -> set[str]:
    """Kinds of layers that keep whole sequences beside layers that attend to all of them.

    V0 gives every layer the same blocks (`worker/cache_engine.py: get_cache_block_size`), V1 began with one group
    (`v1/core/kv_cache_utils.py: unify_hybrid_kv_cache_specs`) and at times left chunks out of the hybrid manager
    (`config/vllm.py`, `VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE`).
    """
    if era.generation == "v0":
        return {"sliding", "chunked", "cross"}
    groups = {"sliding": era.window_groups, "chunked": era.chunked_groups}
    return {kind for kind, grouped in groups.items() if not (grouped and hybrid_manager)}


def _uniform(specs: Sequence[CacheSpec]) -> bool:
    """Whether all layers need the same token slots, so that one group holds them all."""
    first = specs[0]
    kinds = {"full": "all", "mla": "all", "indexer": "all"}
    return all(
        kinds.get(spec.kind, spec.kind) == kinds.get(first.kind, first.kind)
        and spec.block_size == first.block_size
        and spec.reach == first.reach
        and spec.state_blocks == first.state_blocks
        and (spec.kind != "state" or spec.page_bytes == first.page_bytes)
        for spec in _once(specs)
    )


def _once(specs: Sequence[CacheSpec]) -> Iterable[CacheSpec]:
    """Each object once: like layers share theirs."""
    return {id(spec): spec for spec in specs}.values()


def _unified(specs: Sequence[CacheSpec]) -> list[CacheSpec]:
    """Give every layer the same page: longer blocks where that divides evenly, padding elsewhere."""
    page = max(spec.page_bytes for spec in specs)
    unified = []
    for spec in specs:
        if spec.is_attention and page % spec.page_bytes == 0:
            unified.append(spec.with_block(spec.block_size * (page // spec.page_bytes)))
        else:
            unified.append(replace(spec, page_bytes=page))
    return unified


def _groups_of_equal_size(specs: Sequence[CacheSpec], slack: float) -> tuple[Group, ...]:
    kinds: dict[CacheSpec, list[CacheSpec]] = {}
    for spec in specs:
        kinds.setdefault(spec, []).append(spec)
    counts = [len(layers) for layers in kinds.values()]
    smallest, largest = min(counts), max(counts)
    size = largest if largest < smallest * slack else smallest
    groups: list[Group] = []
    for layers in kinds.values():
        # A kind's layers are dealt out in turn, so a group may hold fewer than `size`.
        number = ceil_div(len(layers), size)
        groups.extend(Group(tuple(layers[index::number])) for index in range(number))
    return tuple(groups)
