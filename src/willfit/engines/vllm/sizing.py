"""vLLM's start-up on given devices: what it requests, what is left of that, and the cache made of the rest."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import ceil

from willfit.calibration import constant
from willfit.engines.base import Machine, Subject
from willfit.engines.vllm.cache.specs import DEFAULT_BLOCK
from willfit.engines.vllm.features.tasks import settled
from willfit.engines.vllm.settings import AUTO, Settings
from willfit.engines.vllm.startup import Profile, profiled
from willfit.errors import BadInput
from willfit.estimate import Demand, Term, between, combined
from willfit.hardware.device import Device

#: Constants of what shows more or less of a budget than the table and the terms say.
POOL_SPREADS = ("device.visible_ratio", "vllm.pool_ratio")


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
