"""How vLLM divides the cache of DeepSeek-V4's compressed attention.

Pages of its windows, entries, index keys and partial states differ in size, so they are not padded to one: a block is
as wide as the widest group (0.29, `v1/core/kv_cache_planning.py: _get_packed_kv_cache_groups`), before that a layout
of all page sizes that groups share (`v1/core/kv_cache_utils.py: _get_kv_cache_groups_uniform_groups`,
`_get_kv_cache_config_packed`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from willfit.engines.vllm.cache.plan import CachePlan, Group, bytes_per_block
from willfit.engines.vllm.cache.specs import CacheSpec
from willfit.engines.vllm.settings import Resolved
from willfit.quantities import ceil_div


def plan_compressed(specs: Sequence[CacheSpec], resolved: Resolved) -> CachePlan:
    """Groups of layers that need the same blocks, and the bytes of a block."""
    buckets: dict[tuple[str, int, int], list[CacheSpec]] = defaultdict(list)
    for spec in specs:
        kind = "sliding" if spec.kind == "sliding" else "mla"
        buckets[kind, spec.block_size, spec.reach].append(spec)
    if resolved.era.packed_pages == "groups":
        return _packed(list(buckets.values()), resolved)
    return _shared(list(buckets.values()), resolved)


def _packed(buckets: list[list[CacheSpec]], resolved: Resolved) -> CachePlan:
    """A block holds the widest group; buckets of equally many layers of each size are split alike."""
    counts = [Counter(spec.page_bytes for spec in bucket) for bucket in buckets]
    balanced = [len(set(count.values())) == 1 for count in counts]
    repeats = [max(count.values()) for count in counts]
    mixed = [
        size for size, count, alike in zip(repeats, counts, balanced, strict=True) if alike and len(count) > 1
    ]
    groups: list[Group] = []
    each = _least_padding(
        [size for size, alike in zip(repeats, balanced, strict=True) if alike], max(mixed, default=0)
    )
    for bucket, size, alike in zip(buckets, repeats, balanced, strict=True):
        number = ceil_div(size, each) if alike and mixed else 1
        groups.extend(_split(bucket, number))
    return CachePlan(tuple(groups), bytes_per_block(groups), resolved)


def _shared(buckets: list[list[CacheSpec]], resolved: Resolved) -> CachePlan:
    """A block has room for as many layers of each size of the entries' pages as the largest group has layers."""
    buckets = sorted(buckets, key=lambda bucket: bucket[0].kind == "sliding")
    sizes = sorted({spec.page_bytes for spec in buckets[0]})
    repeats = [max(Counter(spec.page_bytes for spec in bucket).values()) for bucket in buckets]
    each = _least_padding(repeats, repeats[0])
    groups = [Group(tuple(buckets[0]))]
    for bucket, size in zip(buckets[1:], repeats[1:], strict=True):
        groups.extend(_split(bucket, ceil_div(size, each)))
    slots: Counter[int] = Counter()
    for group in groups:
        slots |= Counter(_padded(spec.page_bytes, sizes) for spec in group.specs)
    if resolved.era.packed_pages == "tuples":
        return CachePlan(tuple(groups), sum(sizes) * max(slots.values()), resolved)
    return CachePlan(tuple(groups), sum(size * count for size, count in slots.items()), resolved)


def _padded(page: int, sizes: Sequence[int]) -> int:
    """Windows and states take the next larger page of the entries."""
    return next((size for size in sizes if size >= page), page)


def _split(bucket: list[CacheSpec], number: int) -> Iterator[Group]:
    """The layers of a bucket dealt out over groups, those of each page size evenly."""
    by_size: dict[int, list[CacheSpec]] = defaultdict(list)
    for spec in bucket:
        by_size[spec.page_bytes].append(spec)
    for index in range(number):
        yield Group(tuple(spec for alike in by_size.values() for spec in alike[index::number]))


def _least_padding(values: Sequence[int], least: int) -> int:
    """The group size, at least `least`, that pads all counts up the least; the larger of two that do."""
    sizes = range(max(1, least), max(values, default=1) + 1)
    if not sizes:
        return least
    return min(sizes, key=lambda size: (sum(-value % size for value in values), -size))
