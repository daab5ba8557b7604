"""vLLM put together: weights, profile, budget, cache, and what the start-up log would say."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Any

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.vllm.cache_plan import CachePlan, plan_cache
from willfit.engines.vllm.cache_specs import cache_specs, kv_dtype_of
from willfit.engines.vllm.eras import NEWEST, era_for
from willfit.engines.vllm.profile import activation_term, context_term, graph_term, runtime_term
from willfit.engines.vllm.settings import AUTO, Resolved, Settings, resolve
from willfit.engines.vllm.weights import (
    buffer_bytes,
    is_loaded,
    latent_copy_bytes,
    pipeline_stages,
    rank_bytes,
)
from willfit.errors import BadInput
from willfit.estimate import Capacity, Demand, DeviceEstimate, Estimate, Term, combined, exact
from willfit.hardware.device import Device
from willfit.quantities import DTYPE_BYTES, GIB, dtype_name, format_bytes

NAME = "vllm"


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """vLLM with as many tensor-parallel ranks as the heads allow, the rest of the devices in pipeline."""
    ranks = len(machine.devices)
    heads = [
        mixer.heads
        for layer, _ in subject.architecture.blocks
        for mixer in layer.mixers
        if isinstance(mixer, Attention | LatentAttention)
    ]
    tensor = max(
        size for size in range(1, ranks + 1) if ranks % size == 0 and all(n % size == 0 for n in heads)
    )
    settings = Settings(
        version=question.version or NEWEST,
        tensor_parallel=tensor,
        pipeline_parallel=ranks // tensor,
        kv_cache_dtype=question.kv_dtype,
        max_model_len=question.context_for(subject.architecture),
        runner="pooling" if subject.architecture.encoder_only else "generate",
    )
    return estimate(subject, machine, settings, question.users)


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
    architecture = subject.architecture
    ranks = settings.tensor_parallel * settings.pipeline_parallel
    devices = _devices(machine, ranks)
    smallest = min(devices, key=lambda device: device.usable_bytes or 0)
    era = era_for(settings.version, settings.generation)
    resolved = resolve(settings, architecture, smallest, era)
    dtype = model_dtype(subject, settings, smallest)
    kv_dtype = kv_dtype_of(settings, subject.recipe.kv_cache_dtype, dtype)
    specs = cache_specs(architecture, settings, resolved, kv_dtype, dtype, smallest)
    plan = plan_cache(_widest_stage(specs, settings), resolved, settings.hybrid_cache_manager)

    weights = weights_term(subject, settings, dtype)
    activations = activation_term(architecture, resolved, settings, dtype)
    runtime = runtime_term(settings)
    graphs = graph_term(architecture, resolved)
    context = context_term()

    subtract_graphs = (
        era.graphs_inside if settings.estimate_cudagraphs is None else settings.estimate_cudagraphs
    )
    inside = [weights, activations, runtime]
    if era.context_inside:
        inside.append(context)
    if graphs is not None and subtract_graphs:
        inside.append(graphs)
    outside = [term for term in (context, graphs) if term is not None and term not in inside]

    total = smallest.usable_bytes or 0
    requested = ceil(total * resolved.gpu_memory_utilization)
    if settings.kv_cache_memory_bytes is not None:
        pool = pool_low = pool_high = settings.kv_cache_memory_bytes
    else:
        taken, taken_low, taken_high = combined(inside)
        pool, pool_low, pool_high = requested - taken, requested - taken_high, requested - taken_low
    if settings.num_gpu_blocks_override is not None and plan.groups:
        pool = pool_low = pool_high = settings.num_gpu_blocks_override * plan.bytes_per_block
    if settings.max_model_len == AUTO:
        resolved = replace(resolved, max_model_len=max(1, plan.longest(pool, resolved.max_model_len)))
        plan = replace(plan, resolved=resolved)
    blocks = plan.blocks_in(pool)
    cache = _cache_term(plan, blocks, pool_low, pool_high, requested, inside, settings)

    length = resolved.max_model_len
    demand = _demand(plan, length, users, pool, pool_low, pool_high)
    refusal = refusal_of(subject, settings, total, requested, pool, pool_high, plan, length)
    terms = (*inside, *((cache,) if plan.groups else ()), *outside)
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=settings.version,
        kind="serve",
        devices=tuple(
            DeviceEstimate(
                device.name,
                index,
                device.usable_bytes,
                terms,
                _interval(terms, outside, requested, settings, plan),
            )
            for index, device in enumerate(devices)
        ),
        host=_host(subject, machine, settings),
        capacity=_capacity(plan, pool, resolved) if plan.groups else None,
        demands=(demand,) if demand else (),
        notes=(*subject.notes, *subject.recipe.notes, *_notes(plan, architecture, length, settings)),
        refusal=refusal,
        remedies=_remedies(plan, pool, length, users, settings, subject, architecture.max_positions),
        details=_details(resolved, plan, blocks, pool, (pool_low, pool_high), dtype, kv_dtype, requested),
    )


def model_dtype(subject: Subject, settings: Settings, device: Device) -> str:
    """The activation dtype: as asked, else the config's; fp32 checkpoints run in 16 bits (`config/model.py`).

    Cards before Ampere have no bf16.
    """
    dtype = dtype_name(settings.dtype) if settings.dtype not in (None, "auto") else subject.architecture.dtype
    if settings.dtype in (None, "auto") and dtype == "fp32":
        dtype = "bf16" if _has_bf16(device) else "fp16"
    return "fp16" if dtype == "bf16" and not _has_bf16(device) else dtype


def _has_bf16(device: Device) -> bool:
    major = device.compute_capability.split(".")[0]
    return not major.isdigit() or int(major) >= 8


def weights_term(subject: Subject, settings: Settings, dtype: str) -> Term:
    """Parameters and buffers of the fullest rank, as the start-up log counts them."""
    ranks = settings.tensor_parallel
    stored = sum(
        rank_bytes(line, subject, ranks, dtype)
        for line in subject.lines
        if is_loaded(line, subject, settings)
    )
    if settings.pipeline_parallel > 1:
        stored = _fullest_stage(subject, settings, dtype)
    buffers = buffer_bytes(subject.architecture, dtype)
    copies = latent_copy_bytes(subject, settings)
    size = stored + buffers + copies
    offloaded = min(int(settings.cpu_offload_gb * GIB), size)
    parts = [f"{stored} B of tensors" + (f" on one of {ranks} ranks" if ranks > 1 else "")]
    parts.append(f"{buffers} B of rotary tables and scales")
    if copies:
        parts.append(f"{copies} B of 16-bit latent projections")
    if offloaded:
        parts.append(f"-{offloaded} B kept in host RAM")
    return exact(
        "weights",
        size - offloaded,
        " + ".join(parts).replace("+ -", "- "),
        "vllm/model_executor/layers: sharded parameters and rotary tables",
    )


def _fullest_stage(subject: Subject, settings: Settings, dtype: str) -> int:
    """Bytes of the fullest pipeline stage: its share of the layers, with the embedding or the head."""
    ranks = settings.tensor_parallel
    layers = len(subject.architecture.layers)
    stages = pipeline_stages(layers, settings.pipeline_parallel)
    ends = {"embedding": 0, "head": 0}
    inner = 0
    for line in subject.lines:
        if not is_loaded(line, subject, settings):
            continue
        size = rank_bytes(line, subject, ranks, dtype)
        if line.tensor.part in ends:
            ends[line.tensor.part] += size
        else:
            inner += size
    last = ends["head"] or ends["embedding"]
    first = inner * stages[0] // layers + ends["embedding"]
    return max(first, inner * stages[-1] // layers + last, inner * max(stages) // layers)


def _widest_stage(specs: list[Any], settings: Settings) -> list[Any]:
    """Cache layers of the stage that holds most of them: the pool's blocks are the minimum over stages."""
    if settings.pipeline_parallel == 1:
        return specs
    return specs[: max(pipeline_stages(len(specs), settings.pipeline_parallel))]


def _devices(machine: Machine, ranks: int) -> tuple[Device, ...]:
    if len(machine.devices) == 1 and ranks > 1:
        raise BadInput(f"{ranks} ranks need {ranks} devices, 1 was given", f"write --gpu {ranks}x...")
    if len(machine.devices) < ranks:
        raise BadInput(f"{ranks} ranks need {ranks} devices, {len(machine.devices)} were given")
    return machine.devices[:ranks]


def _cache_term(
    plan: CachePlan, blocks: int, low: int, high: int, requested: int, inside: list[Term], settings: Settings
) -> Term:
    size = blocks * plan.bytes_per_block
    if settings.kv_cache_memory_bytes is not None:
        formula = f"{blocks} blocks x {plan.bytes_per_block} B (as asked for)"
    else:
        others = " - ".join(f"{term.bytes} ({term.name})" for term in inside)
        formula = f"{requested} allowed - {others} = {blocks} blocks x {plan.bytes_per_block} B"
    reference = "vllm/v1/worker/gpu_worker.py: determine_available_memory"
    return Term("kv_cache", size, max(0, min(low, size)), max(high, size), formula, reference)


def _interval(
    terms: tuple[Term, ...], outside: list[Term], requested: int, settings: Settings, plan: CachePlan
) -> tuple[int, int] | None:
    """The cache takes what the other terms leave, so only what lies outside the budget is uncertain."""
    if settings.kv_cache_memory_bytes is not None or not plan.groups:
        return None
    if sum(term.bytes for term in terms if term not in outside) > requested:
        return None  # the weights alone exceed the budget: nothing makes up for anything
    _, low, high = combined(outside)
    spread = sum(term.bytes for term in outside)
    peak = sum(term.bytes for term in terms)
    return peak - (spread - low), peak + (high - spread)


def _demand(plan: CachePlan, length: int, users: int, pool: int, low: int, high: int) -> Demand | None:
    if not plan.groups:
        return None
    what = f"{users} sequence{'s' if users > 1 else ''} of {length:,} tokens"
    null = plan.bytes_per_block if plan.resolved.era.null_block else 0
    return Demand(what, plan.bytes_for(length, users) + null, pool, low, high)


def refusal_of(
    subject: Subject,
    settings: Settings,
    total: int,
    requested: int,
    pool: int,
    pool_high: int,
    plan: CachePlan,
    length: int,
) -> str:
    """Why vLLM would stop at start-up; empty if it would not."""
    ranks = settings.tensor_parallel
    for layer, _ in subject.architecture.blocks:
        for mixer in layer.mixers:
            heads = getattr(mixer, "heads", 0)
            if heads and not mixer.fixed_states and heads % ranks:
                return f"{heads} attention heads cannot be divided over {ranks} ranks"
    if not plan.groups or settings.kv_cache_memory_bytes is not None:
        return ""
    if total and pool_high <= 0:
        return (
            f"weights and run-time memory exceed the {format_bytes(requested)} "
            "that vLLM allows itself: no room for a cache"
        )
    return ""


def _capacity(plan: CachePlan, pool: int, resolved: Resolved) -> Capacity:
    blocks = plan.blocks_in(pool)
    return Capacity(
        kv_cache_tokens=plan.reported_tokens(blocks),
        max_context=plan.longest(pool, resolved.max_model_len),
        max_concurrency=plan.concurrency(blocks),
    )


def _host(subject: Subject, machine: Machine, settings: Settings) -> DeviceEstimate:
    ranks = settings.tensor_parallel * settings.pipeline_parallel
    terms: list[Term] = []
    offloaded = int(settings.cpu_offload_gb * GIB) * ranks
    if offloaded:
        formula = f"{ranks} ranks x {settings.cpu_offload_gb:g} GiB"
        terms.append(exact("weights", offloaded, formula, "vLLM --cpu-offload-gb"))
    if era_for(settings.version, settings.generation).generation == "v0" and settings.swap_space:
        swap = int(settings.swap_space * GIB) * ranks
        formula = f"{ranks} ranks x {settings.swap_space:g} GiB pinned"
        terms.append(exact("swap", swap, formula, "vLLM --swap-space (V0)"))
    return DeviceEstimate("host", 0, machine.host_bytes, tuple(terms))


def _notes(plan: CachePlan, architecture: Any, length: int, settings: Settings) -> list[str]:
    notes = []
    if plan.groups:
        held = sum(
            times * mixer.cached_elements(length)
            for layer, times in architecture.blocks
            for mixer in layer.mixers
        )
        size = DTYPE_BYTES.get(architecture.dtype, 2)
        minimum = held * size // settings.tensor_parallel
        taken = plan.bytes_for(length)
        if len(plan.groups) > 1 and taken > 1.1 * minimum > 0:
            notes.append(
                f"one sequence of {length:,} tokens must hold {format_bytes(minimum)} on a rank, and vLLM takes "
                f"{format_bytes(taken)}: its {len(plan.groups)} cache groups share one block size, and window "
                "layers also hold the tokens in flight"
            )
    return notes


def _remedies(
    plan: CachePlan,
    pool: int,
    length: int,
    users: int,
    settings: Settings,
    subject: Subject,
    limit: int,
) -> tuple[str, ...]:
    """What would make it fit, if the cache is too small or the weights too large."""
    if not plan.groups or plan.bytes_for(length, users) <= pool:
        return ()
    remedies = []
    longest = plan.longest(pool, length, users)
    if longest >= 256:
        each = f" for each of {users} users" if users > 1 else ""
        remedies.append(f"a context of {longest // 16 * 16:,} tokens{each} (--max-model-len)")
    fitting = int(plan.concurrency(plan.blocks_in(pool), length))
    if 1 <= fitting < users:
        remedies.append(f"{fitting} user{'s' if fitting > 1 else ''} at {length:,} tokens")
    if settings.kv_cache_dtype == "auto" and subject.recipe.kv_cache_dtype is None:
        remedies.append("an 8-bit cache (--kv-cache-dtype fp8) halves what each token takes")
    if subject.recipe.name in ("bf16", "fp16", "fp32"):
        remedies.append("quantized weights (--format fp8, awq or nvfp4)")
    ranks = settings.tensor_parallel
    remedies.append(f"{2 * ranks} devices (--tensor-parallel-size {2 * ranks})")
    return tuple(remedies)


def _details(
    resolved: Resolved,
    plan: CachePlan,
    blocks: int,
    pool: int,
    pool_interval: tuple[int, int],
    dtype: str,
    kv_dtype: str,
    requested: int,
) -> dict[str, Any]:
    sizes = [spec.block_size for group in plan.groups for spec in group.specs]
    return {
        "max_model_len": resolved.max_model_len,
        "max_num_seqs": resolved.max_num_seqs,
        "max_num_batched_tokens": resolved.max_num_batched_tokens,
        "gpu_memory_utilization": resolved.gpu_memory_utilization,
        "requested_bytes": requested,
        "kv_cache_pool_bytes": pool,
        "kv_cache_pool_interval": pool_interval,
        "num_gpu_blocks": blocks,
        "block_size": min(sizes) if sizes else 0,
        "bytes_per_block": plan.bytes_per_block,
        "cache_groups": len(plan.groups),
        "dtype": dtype,
        "kv_cache_dtype": kv_dtype,
    }
