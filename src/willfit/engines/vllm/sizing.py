"""vLLM's start-up, in its own order: resolve settings, load weights, profile, subtract, size the cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from willfit.calibration import constant
from willfit.engines.base import Machine, Subject
from willfit.engines.vllm.buffers import buffer_bytes
from willfit.engines.vllm.cache_plan import CachePlan, plan_cache
from willfit.engines.vllm.cache_specs import DEFAULT_BLOCK, cache_specs, kv_dtype_of
from willfit.engines.vllm.eras import era_for
from willfit.engines.vllm.profile import activation_term, context_term, graph_term, runtime_term
from willfit.engines.vllm.refusals import refusal
from willfit.engines.vllm.settings import AUTO, Resolved, Settings, resolve
from willfit.engines.vllm.slack import slack_bytes
from willfit.engines.vllm.weights import latent_copy_bytes, layout_bytes, parameter_bytes
from willfit.errors import BadInput
from willfit.estimate import Demand, Term, between, combined
from willfit.hardware.device import Device
from willfit.quantities import GIB, dtype_name

_AFTER_LOADING = "copies and layouts made after loading, and slack of the allocator"


@dataclass(frozen=True, slots=True)
class Sizing:
    """What vLLM decides and allocates at start-up, on the fullest rank.

    Attributes
    ----------
    inside, outside
        Terms that count against `requested_bytes`, and terms that come on top of it.
    requested_bytes
        What vLLM allows itself of the device.
    pool_bytes, pool_interval
        Bytes for the cache, before rounding to blocks; negative if nothing is left.
    plan
        How the cache is divided.
    after_loading_bytes
        Part of the weights term that is no parameter or buffer: made after loading, or the allocator's slack.
    refusal
        Why it would not start whatever the memory; empty otherwise.
    """

    resolved: Resolved
    dtype: str
    kv_dtype: str
    inside: tuple[Term, ...]
    outside: tuple[Term, ...]
    requested_bytes: int
    pool_bytes: int
    pool_interval: tuple[int, int]
    plan: CachePlan
    after_loading_bytes: int
    refusal: str

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
        null = self.plan.bytes_per_block if self.resolved.era.null_block else 0
        return Demand(
            f"{sequences:,} sequence{'s' if sequences > 1 else ''} of {length:,} tokens",
            self.plan.bytes_for(length, sequences) + null,
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
    architecture = subject.architecture
    device = smallest_device(machine, settings)
    era = era_for(settings.version, settings.generation)
    resolved = resolve(settings, architecture, device, era)
    dtype = model_dtype(subject, settings, device)
    kv_dtype = kv_dtype_of(settings, subject.recipe.kv_cache_dtype, dtype, architecture, device)
    specs = cache_specs(architecture, settings, resolved, kv_dtype, dtype, device)
    plan = plan_cache(specs, resolved, settings.hybrid_cache_manager)

    copies = (
        latent_copy_bytes(subject, settings)
        + layout_bytes(subject, settings, device)
        + slack_bytes(subject, settings, dtype, device)
    )
    weights = weights_term(subject, settings, dtype, device, copies)
    context = context_term()
    subtracted = era.graphs_inside if settings.estimate_cudagraphs is None else settings.estimate_cudagraphs
    graphs = graph_term(subject, resolved, subtracted)
    activations = activation_term(architecture, resolved, settings, dtype, device)
    inside = [weights, activations, runtime_term(settings, device)]
    outside: list[Term] = []
    (inside if era.context_inside else outside).append(context)
    if graphs is not None:
        (inside if subtracted else outside).append(graphs)

    requested = ceil((device.usable_bytes or 0) * resolved.gpu_memory_utilization)
    taken, taken_low, taken_high = combined([*inside, *_unexplained(requested)])
    pool, low, high = requested - taken, requested - taken_high, requested - taken_low
    if settings.kv_cache_memory_bytes is not None:
        pool = low = high = settings.kv_cache_memory_bytes
    if settings.num_gpu_blocks_override is not None and plan.groups:
        pool = low = high = settings.num_gpu_blocks_override * plan.bytes_per_block
    if settings.max_model_len == AUTO:
        longest = plan.longest(pool, resolved.max_model_len)
        resolved = replace(resolved, max_model_len=max(1, longest))
        plan = replace(plan, resolved=resolved)
    return Sizing(
        resolved=resolved,
        dtype=dtype,
        kv_dtype=kv_dtype,
        inside=tuple(inside),
        outside=tuple(outside),
        requested_bytes=requested,
        pool_bytes=pool,
        pool_interval=(low, high),
        plan=plan,
        after_loading_bytes=copies,
        refusal=refusal(subject, settings, device),
    )


def _unexplained(requested: int) -> list[Term]:
    """What shows more or less of a budget than the table and the terms say, as terms around nothing.

    Drivers and systems differ in what they show of a card; the rest is what logged pools missed the rules' intervals
    by, in shares of the budget.
    """
    spreads = (constant("device.visible_ratio"), constant("vllm.pool_ratio"))
    return [
        between("", 0, -int(requested * (spread.high - 1)), -int(requested * (spread.low - 1)))
        for spread in spreads
    ]


def ranks_of(settings: Settings) -> int:
    """Devices that one replica takes."""
    return settings.tensor_parallel * settings.pipeline_parallel


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


def model_dtype(subject: Subject, settings: Settings, device: Device) -> str:
    """The activation dtype: as asked, else the config's; fp32 checkpoints run in 16 bits (`config/model.py`).

    Cards before Ampere have no bf16.
    """
    asked = settings.dtype not in (None, "auto")
    dtype = dtype_name(settings.dtype) if settings.dtype and asked else subject.architecture.dtype
    has_bf16 = _has_bf16(device)
    if not asked and dtype == "fp32":
        dtype = "bf16" if has_bf16 else "fp16"
    return "fp16" if dtype == "bf16" and not has_bf16 else dtype


def _has_bf16(device: Device) -> bool:
    major = device.compute_capability.split(".")[0]
    return not major.isdigit() or int(major) >= 8


def weights_term(subject: Subject, settings: Settings, dtype: str, device: Device, copies: int) -> Term:
    """Parameters and buffers of the fullest rank, as the start-up log counts them."""
    ranks = settings.tensor_parallel
    stored = parameter_bytes(subject, settings, dtype, device)
    buffers = buffer_bytes(subject, settings, dtype)
    size = stored + buffers + copies
    offloaded = min(int(settings.cpu_offload_gb * GIB), size)
    formula = f"{stored} B of tensors ({subject.recipe.name})" + (
        f" on one of {ranks} ranks" if ranks > 1 else ""
    )
    formula += f" + {buffers} B of rotary tables and scales"
    if copies:
        formula += f" + {copies} B of {_AFTER_LOADING}"
    if offloaded:
        formula += f" - {offloaded} B kept in host RAM"
    spread = constant("vllm.weights_ratio")
    reference = f"vllm/model_executor/layers: sharded parameters, rotary tables; interval: {spread.reference}"
    held = size - offloaded
    less, more = subject.weight_sureness
    low, high = int(held * spread.low * less), int(held * spread.high * more)
    return between("weights", held, low, high, formula, reference)
