"""vLLM's start-up as an estimate: terms for each device, what the cache holds, what would make it fit."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.held import held_bytes
from willfit.architectures.mixers import CompressedAttention
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.support import model_note
from willfit.engines.vllm.cache.compressed_pages import has_unknown_states
from willfit.engines.vllm.devices.support import device_refusal
from willfit.engines.vllm.eras import NEWEST
from willfit.engines.vllm.features.drafts import is_unknown
from willfit.engines.vllm.features.sleeping import Sleeping, asleep
from willfit.engines.vllm.features.tasks import settled
from willfit.engines.vllm.host import host_terms, process_note
from willfit.engines.vllm.loading.buffers import buffer_bytes
from willfit.engines.vllm.models import support
from willfit.engines.vllm.refusals import undivided
from willfit.engines.vllm.settings import Settings
from willfit.engines.vllm.sizing import Sizing, ranks_of, size_up, smallest_device
from willfit.engines.vllm.sources import source
from willfit.estimate import Capacity, DeviceEstimate, Estimate, Term, combined
from willfit.quantities import ceil_div, format_bytes

NAME = "vllm"

#: Rounding of a suggested context, so that it is a number that people would type.
_CONTEXT_STEP = 256


def settings_for(subject: Subject, machine: Machine, question: Question) -> Settings:
    """vLLM with as many tensor-parallel ranks as the model divides over, the rest of the devices in pipeline."""
    devices = len(machine.devices)
    settings = Settings(
        version=question.version or NEWEST,
        kv_cache_dtype=question.kv_dtype,
        max_model_len=question.context_for(subject.architecture),
    )
    sizes = (size for size in range(devices, 0, -1) if devices % size == 0)
    layouts = (replace(settings, tensor_parallel=size, pipeline_parallel=devices // size) for size in sizes)
    return next((layout for layout in layouts if not undivided(subject, layout)), settings)


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """The estimate with the settings that the question means."""
    return estimate(subject, machine, settings_for(subject, machine, question), question.users)


def estimate(subject: Subject, machine: Machine, settings: Settings, users: int = 1) -> Estimate:
    """What vLLM would allocate on each device, and whether it would start and hold the workload.

    Parameters
    ----------
    subject
        The model as stored.
    machine
        At least as many devices as there are ranks.
    settings
        Under vLLM's own names.
    users
        Sequences of `max_model_len` tokens that shall run at once.

    Raises
    ------
    BadInput
        If there are fewer devices than ranks, or the length of a sequence is not known.
    """
    settings = settled(subject, settings)
    sizing = size_up(subject, machine, settings)
    usable = smallest_device(machine, settings).usable_bytes or 0
    cache = (_cache_term(sizing, settings, usable),) if sizing.plan.groups else ()
    terms = (*sizing.inside, *cache, *sizing.outside)
    interval = _interval(terms, sizing, settings)
    demand = sizing.demand(ceil_div(users, settings.data_parallel))
    sleeping = asleep(terms, buffer_bytes(subject, settings, sizing.dtype)) if settings.sleep_mode else None
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=settings.version,
        kind="serve",
        devices=tuple(
            DeviceEstimate(device.name, index, device.usable_bytes, terms, interval)
            for index, device in enumerate(machine.devices[: ranks_of(settings) * settings.local_replicas])
        ),
        host=_host(subject, machine, settings, sizing, sleeping),
        capacity=_capacity(sizing, subject.architecture.max_positions) if sizing.plan.groups else None,
        demands=(demand,) if demand else (),
        notes=(*subject.notes, *subject.recipe.notes, *_notes(subject, machine, sizing, settings, sleeping)),
        refusal=sizing.refusal,
        remedies=() if sizing.refusal else _remedies(subject, machine, sizing, settings, users),
        details={
            "max_model_len": sizing.resolved.max_model_len,
            "max_num_seqs": sizing.resolved.max_num_seqs,
            "max_num_batched_tokens": sizing.resolved.max_num_batched_tokens,
            "gpu_memory_utilization": sizing.resolved.gpu_memory_utilization,
            "num_gpu_blocks": sizing.blocks,
            "block_size": sizing.block_size,
            "dtype": sizing.dtype,
            "kv_cache_dtype": sizing.kv_dtype,
            "tensor_parallel": settings.tensor_parallel,
            "pipeline_parallel": settings.pipeline_parallel,
            "expert_ranks": settings.expert_ranks if settings.expert_parallel else 1,
            "users": users,
            "era": sizing.resolved.era,
            **({"asleep": sleeping.as_details()} if sleeping else {}),
        },
    )


def _cache_term(sizing: Sizing, settings: Settings, usable: int) -> Term:
    plan, blocks = sizing.plan, sizing.blocks
    size = blocks * plan.bytes_per_block
    low, high = sizing.pool_interval
    if settings.kv_cache_memory_bytes is not None:
        formula = f"{blocks} blocks x {plan.bytes_per_block} B (as asked for)"
    else:
        others = " - ".join(f"{term.bytes} ({term.name})" for term in sizing.inside)
        share = f"{sizing.resolved.gpu_memory_utilization:g} (gpu_memory_utilization)"
        formula = f"{share} x {usable} B usable - {others} = {blocks} blocks x {plan.bytes_per_block} B"
    reference = source("budget", settings.version, sizing.resolved.era)
    return Term("kv_cache", size, max(0, min(low, size)), max(high, size), formula, reference)


def _interval(terms: tuple[Term, ...], sizing: Sizing, settings: Settings) -> tuple[int, int] | None:
    """The cache takes what the other terms leave, so only what lies outside the budget is uncertain."""
    if settings.kv_cache_memory_bytes is not None or not sizing.plan.groups or sizing.pool_bytes <= 0:
        return None
    outside, low, high = combined(sizing.outside)
    peak = sum(term.bytes for term in terms)
    return peak - (outside - low), peak + (high - outside)


def _capacity(sizing: Sizing, limit: int) -> Capacity:
    """The longest context is the model's limit or what the cache holds, whatever `max_model_len` was set."""
    plan = sizing.plan
    return Capacity(
        kv_cache_tokens=plan.reported_tokens(sizing.blocks),
        max_context=plan.longest(sizing.pool_bytes, limit or sizing.resolved.max_model_len),
        max_concurrency=plan.concurrency(sizing.blocks),
    )


def _host(
    subject: Subject, machine: Machine, settings: Settings, sizing: Sizing, sleeping: Sleeping | None
) -> DeviceEstimate:
    terms = host_terms(
        subject,
        settings,
        sizing.resolved,
        sizing.dtype,
        sizing.moved,
        sizing.plan.bytes_per_block,
        sleeping.host_bytes if sleeping else 0,
    )
    return DeviceEstimate("host", 0, machine.host_bytes, terms)


def _notes(
    subject: Subject, machine: Machine, sizing: Sizing, settings: Settings, sleeping: Sleeping | None
) -> list[str]:
    """How the devices are used, and where the engine takes much more for a sequence than the maths needs."""
    plan, model, version = sizing.plan, subject.architecture, settings.version
    notes = model_note("vllm", model, version, support(model, version))
    notes += _feature_notes(subject, machine, settings, sleeping)
    if settings.pipeline_parallel > 1:
        notes.append(
            f"layout: {settings.pipeline_parallel} pipeline stages, each of {settings.tensor_parallel} "
            f"device{'s' if settings.tensor_parallel > 1 else ''}"
        )
    if len(plan.groups) < 2:
        return notes
    length = sizing.resolved.max_model_len
    minimum = int(held_bytes(subject.architecture, length, sizing.dtype)) // settings.tensor_parallel
    taken = plan.blocks_per_request(length) * plan.bytes_per_block
    planned = plan.planned_blocks(length) * plan.bytes_per_block
    if planned > taken:
        notes.append(
            f"vLLM plans {format_bytes(planned)} for a sequence, as if its source had as many positions as a batch "
            f"has tokens; it takes {format_bytes(taken)}, so that more fit at once than it reports"
        )
    if taken > 1.1 * minimum:
        notes.append(
            f"a sequence of {length:,} tokens must hold {format_bytes(minimum)} on a rank; vLLM takes "
            f"{format_bytes(taken)}, because its {len(plan.groups)} cache groups share one block size and "
            "window layers also hold the tokens in flight"
        )
    return notes


def _feature_notes(
    subject: Subject, machine: Machine, settings: Settings, sleeping: Sleeping | None
) -> list[str]:
    """What a reader should know of replicas, drafts, sleep and the host."""
    notes = []
    if settings.data_parallel > 1:
        needed = ranks_of(settings) * settings.local_replicas
        short = f"; {needed} devices are needed here, {len(machine.devices)} are given"
        notes.append(
            f"{settings.data_parallel} replicas of {ranks_of(settings)} device(s), each with a cache of its own: "
            f"figures are those of one{short if len(machine.devices) < needed else ''}"
        )
    if is_unknown(subject, settings):
        notes.append(
            "what the draft model takes is not known; the interval reaches from nothing to half of the target's weights"
        )
    mixers = [mixer for layer, _ in subject.architecture.blocks for mixer in layer.mixers]
    if any(isinstance(mixer, CompressedAttention) and has_unknown_states(mixer) for mixer in mixers) or any(
        getattr(mixer, "index_pool", 1) > 1 for mixer in mixers
    ):
        notes.append(
            "rings in which keys wait to be compressed, a block for each sequence and group, are not counted"
        )
    if sleeping is not None:
        notes.append(
            f"asleep, a rank still holds {format_bytes(sleeping.device_bytes)}; level 1 copies "
            f"{format_bytes(sleeping.host_bytes)} to the host, level 2 {format_bytes(sleeping.host_buffer_bytes)}"
        )
    if machine.host_bytes is not None:
        notes.append(process_note(settings))
    return notes


def _remedies(
    subject: Subject, machine: Machine, sizing: Sizing, settings: Settings, users: int
) -> tuple[str, ...]:
    """What would make it fit, if the cache is too small or the weights too large."""
    users = ceil_div(users, settings.data_parallel)
    demand = sizing.demand(users)
    if demand is None or demand.verdict == "fits":
        return ()
    plan, length = sizing.plan, sizing.resolved.max_model_len
    remedies = []
    longest = plan.longest(sizing.pool_bytes, length, users) // _CONTEXT_STEP * _CONTEXT_STEP
    if 0 < longest < length:
        each = f" for each of {users} users" if users > 1 else ""
        remedies.append(f"a context of {longest:,} tokens{each} (--max-model-len {longest})")
    fitting = int(plan.concurrency(sizing.blocks))
    if 1 <= fitting < users:
        remedies.append(f"{fitting} user{'s' if fitting > 1 else ''} at {length:,} tokens")
    unset = settings.kv_cache_dtype == "auto" and subject.recipe.kv_cache_dtype is None
    narrow, device = replace(settings, kv_cache_dtype="fp8"), smallest_device(machine, settings)
    if sizing.pool_bytes > 0 and unset and not device_refusal(subject, narrow, device):
        remedies.append("an 8-bit cache, half the bytes for each token (--kv-cache-dtype fp8)")
    if subject.recipe.name in ("bf16", "fp16", "fp32"):
        remedies.append("quantized weights: --format fp8 halves them, awq or nvfp4 quarters them")
    ranks = ranks_of(settings)
    remedies.append(f"{2 * ranks} devices (--tensor-parallel-size {2 * settings.tensor_parallel})")
    return tuple(remedies)
