"""vLLM's start-up, in its own order: resolve settings, load weights, profile, subtract, size the cache."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import ceil

from willfit.calibration import constant
from willfit.engines.base import Machine, Subject
from willfit.engines.context import context_term
from willfit.engines.vllm.cache.compressed_plan import plan_compressed
from willfit.engines.vllm.cache.plan import CachePlan, plan_cache
from willfit.engines.vllm.cache.specs import (
    DEFAULT_BLOCK,
    block_size_for,
    cache_specs,
    is_compressed,
    kv_dtype_of,
)
from willfit.engines.vllm.devices.dtypes import model_dtype
from willfit.engines.vllm.eras import era_for
from willfit.engines.vllm.features.drafts import buffer_term, draft_specs, draft_term, falls_back
from willfit.engines.vllm.features.experts import all_to_all_term, balance_term
from willfit.engines.vllm.features.lora import graph_sets, lora_era, lora_term
from willfit.engines.vllm.features.offload import Offloaded, offloaded
from willfit.engines.vllm.features.tasks import settled
from willfit.engines.vllm.host import joins_groups
from willfit.engines.vllm.loading.buffers import buffer_bytes
from willfit.engines.vllm.loading.slack import slack_bytes
from willfit.engines.vllm.loading.weights import latent_copy_bytes, layout_bytes, parameter_bytes
from willfit.engines.vllm.profiling.graphs import graph_term, graphs_are_subtracted
from willfit.engines.vllm.profiling.peak import activation_term, buffers_term
from willfit.engines.vllm.profiling.runtime import runtime_term
from willfit.engines.vllm.refusals import refusal
from willfit.engines.vllm.settings import AUTO, Resolved, Settings, resolve
from willfit.engines.vllm.sources import source
from willfit.errors import BadInput
from willfit.estimate import Demand, Term, between, combined, exact
from willfit.hardware.device import Device
from willfit.quantities import GIB

#: Constants of what shows more or less of a budget than the table and the terms say.
POOL_SPREADS = ("device.visible_ratio", "vllm.pool_ratio")

_AFTER_LOADING = "copies and layouts made after loading, and slack of the allocator"


@dataclass(frozen=True, slots=True)
class Profile:
    """What vLLM decides and takes at start-up, on the fullest rank, but for the cache.

    Attributes
    ----------
    inside, outside
        Terms that count against vLLM's budget, and terms that come on top of it.
    plan
        How the cache is divided.
    after_loading_bytes
        Part of the weights term that is no parameter or buffer: made after loading, or the allocator's slack.
    moved
        Weights that each rank keeps in host RAM.
    refusal
        Why it would not start whatever the memory; empty otherwise.
    """

    resolved: Resolved
    dtype: str
    kv_dtype: str
    inside: tuple[Term, ...]
    outside: tuple[Term, ...]
    plan: CachePlan
    after_loading_bytes: int
    moved: Offloaded
    refusal: str

    def needed_bytes(self, sequences: int) -> int:
        """What sequences of the longest length need of the cache, with the block that newer versions keep back."""
        null = self.plan.bytes_per_block if self.resolved.era.null_block else 0
        return self.plan.bytes_for(self.resolved.max_model_len, sequences) + null


@dataclass(frozen=True, slots=True)
class Sizing(Profile):
    """A profile with the cache that a device has room for.

    Attributes
    ----------
    requested_bytes
        What vLLM allows itself of the device.
    pool_bytes, pool_interval
        Bytes for the cache, before rounding to blocks; negative if nothing is left.
    """

    requested_bytes: int
    pool_bytes: int
    pool_interval: tuple[int, int]

    @property
    def blocks(self) -> int:
        """Blocks of the pool."""
        return self.plan.blocks_in(self.pool_bytes)

    @property
    def block_size(self) -> int:
        """Tokens in the smallest block of an attention layer; vLLM's default if none keeps a cache."""
        specs = [spec for group in self.plan.groups for spec in group.specs if spec.is_attention]
        return min((spec.block_size for spec in specs), default=DEFAULT_BLOCK)

    def demand(self, sequences: int) -> Demand | None:
        """What `sequences` sequences of the longest length need of the pool; None without a cache."""
        if not self.plan.groups:
            return None
        length = self.resolved.max_model_len
        return Demand(
            f"{sequences:,} sequence{'s' if sequences > 1 else ''} of {length:,} tokens",
            self.needed_bytes(sequences),
            self.pool_bytes,
            *self.pool_interval,
        )


def size_up(subject: Subject, machine: Machine, settings: Settings) -> Sizing:
    """Go through vLLM's start-up.

    Raises
    ------
    BadInput
        If there are fewer devices than ranks, or the length of a sequence is not known.
    """
    settings = settled(subject, settings)
    device = smallest_device(machine, settings)
    profile = profiled(subject, device, settings)
    resolved, plan = profile.resolved, profile.plan
    requested = ceil((device.usable_bytes or 0) * resolved.gpu_memory_utilization)
    taken, taken_low, taken_high = combined([*profile.inside, *_unexplained(requested)])
    pool, low, high = requested - taken, requested - taken_high, requested - taken_low
    if settings.kv_cache_memory_bytes is not None:
        pool = low = high = settings.kv_cache_memory_bytes
    if settings.num_gpu_blocks_override is not None and plan.groups:
        pool = low = high = settings.num_gpu_blocks_override * plan.bytes_per_block
    if settings.max_model_len == AUTO:
        longest = plan.longest(pool, resolved.max_model_len)
        resolved = replace(resolved, max_model_len=max(1, longest))
        profile = replace(profile, resolved=resolved, plan=replace(plan, resolved=resolved))
    known = {one.name: getattr(profile, one.name) for one in fields(profile)}
    return Sizing(**known, requested_bytes=requested, pool_bytes=pool, pool_interval=(low, high))


def profiled(subject: Subject, device: Device, settings: Settings) -> Profile:
    """Go through vLLM's start-up until the cache is sized.

    Parameters
    ----------
    device
        Of its memory it only matters whether it is much (see `kinds.kind_of`).
    settings
        Settled (`features.tasks.settled`).

    Raises
    ------
    BadInput
        If the length of a sequence is not known.
    """
    architecture = subject.architecture
    if falls_back(subject, settings):
        settings = replace(settings, generation="v0")
    era = era_for(settings.version, settings.generation)
    if settings.chunked_groups is not None:
        era = replace(era, chunked_groups=settings.chunked_groups)
    resolved = replace(resolve(settings, architecture, device, era), graph_sets=graph_sets(settings))
    dtype = model_dtype(subject, settings, device)
    kv_dtype = kv_dtype_of(settings, subject.recipe.kv_cache_dtype, dtype, architecture, device)
    specs = cache_specs(architecture, settings, resolved, kv_dtype, dtype, device)
    specs = [
        *specs,
        *draft_specs(subject, settings, resolved, kv_dtype, dtype, device, specs),
    ]
    if is_compressed(architecture):
        plan = plan_compressed(specs, resolved)
    else:
        plan = plan_cache(specs, resolved, settings.hybrid_cache_manager and not joins_groups(settings))

    copies = (
        latent_copy_bytes(subject, settings)
        + layout_bytes(subject, settings, device)
        + slack_bytes(subject, settings, dtype, device)
    )
    moved = offloaded(subject, settings, dtype, device)
    weights = weights_term(subject, settings, dtype, device, copies, moved)
    context = context_term(device)
    subtracted = graphs_are_subtracted(subject, settings, era)
    graphs = graph_term(subject, resolved, settings, device, subtracted)
    activations = activation_term(
        subject, resolved, settings, dtype, device, block_size_for(architecture, settings, kv_dtype, device)
    )
    buffers = buffers_term(subject, resolved, settings, device)
    inside = [weights, activations, runtime_term(settings, device, era)]
    outside: list[Term] = []
    (inside if era.context_inside else outside).append(context)
    if graphs is not None:
        (inside if subtracted else outside).append(graphs)
    if buffers is not None:
        (inside if era.whole_account else outside).append(buffers)
    for term, counted in _features(subject, settings, resolved, dtype, device, weights.bytes):
        if term is not None:
            (inside if counted else outside).append(term)

    return Profile(
        resolved=resolved,
        dtype=dtype,
        kv_dtype=kv_dtype,
        inside=tuple(inside),
        outside=tuple(outside),
        plan=plan,
        after_loading_bytes=copies,
        moved=moved,
        refusal=refusal(subject, settings, device),
    )


def _features(
    subject: Subject, settings: Settings, resolved: Resolved, dtype: str, device: Device, weights: int
) -> list[tuple[Term | None, bool]]:
    """Terms of what a user may switch on, and whether they count against the budget.

    V0 has subtracted since 0.6.5 what the target's weights and the profile run take, and nothing else.
    """
    era = resolved.era
    counted = era.generation == "v1" or era.context_inside
    ipc = int(settings.mm_ipc_gpu_memory_gb * GIB) if subject.architecture.towers else 0
    return [
        (
            lora_term(subject, settings, resolved, dtype),
            lora_era(settings.version).in_loading or era.context_inside,
        ),
        (draft_term(subject, settings, resolved, dtype, device, weights), counted),
        (buffer_term(subject, settings, resolved, dtype), era.whole_account),
        (balance_term(subject, settings, dtype, device), True),
        (all_to_all_term(subject.architecture, settings, resolved), True),
        (
            exact("video_decoding", ipc, f"{ipc} B (as asked for)", source("video", settings.version, era))
            if ipc
            else None,
            True,
        ),
    ]


def _unexplained(requested: int) -> list[Term]:
    """What shows more or less of a budget than the table and the terms say, as terms around nothing.

    Drivers and systems differ in what they show of a card; the rest is what logged pools missed the rules' intervals
    by, in shares of the budget.
    """
    spreads = (constant(name) for name in POOL_SPREADS)
    return [
        between("", 0, -int(requested * (spread.high - 1)), -int(requested * (spread.low - 1)))
        for spread in spreads
    ]


def ranks_of(settings: Settings) -> int:
    """Devices that one replica takes."""
    return settings.replica_ranks


def smallest_device(machine: Machine, settings: Settings) -> Device:
    """The device that decides: all ranks get as many blocks as the one with the fewest.

    Raises
    ------
    BadInput
        If there are fewer devices than ranks.
    """
    ranks = ranks_of(settings)
    given = len(machine.devices)
    if given < ranks:
        raise BadInput(f"{ranks} ranks need {ranks} devices, {given} given", f"write --gpu {ranks}x...")
    return min(machine.devices[:ranks], key=lambda device: device.usable_bytes or 0)


def weights_term(
    subject: Subject, settings: Settings, dtype: str, device: Device, copies: int, moved: Offloaded
) -> Term:
    """Parameters and buffers of the fullest rank, as the start-up log counts them."""
    ranks = settings.tensor_parallel
    stored = parameter_bytes(subject, settings, dtype, device)
    buffers = buffer_bytes(subject, settings, dtype)
    size = stored + buffers + copies
    formula = f"{stored} B of tensors ({subject.recipe.name})" + (
        f" on one of {ranks} ranks" if ranks > 1 else ""
    )
    formula += f" + {buffers} B of rotary tables and scales"
    if copies:
        formula += f" + {copies} B of {_AFTER_LOADING}"
    if moved.host_bytes:
        formula += f" - {moved.host_bytes} B kept in host RAM"
    if moved.buffer_bytes:
        formula += f" + {moved.buffer_bytes} B to copy layers into"
    spread = constant("vllm.weights_ratio")
    era = era_for(settings.version, settings.generation)
    reference = f"{source('weights', settings.version, era)}; interval: {spread.reference}"
    held = size - moved.saved_bytes
    less, more = subject.weight_sureness
    low, high = int(held * spread.low * less), int(held * spread.high * more)
    return between("weights", held, low, high, formula, reference)
