"""SGLang's start-up as an estimate: terms for each device, what the pools hold, what would make it fit."""

from __future__ import annotations

from dataclasses import replace

from willfit.engines.base import Machine, Question, Subject
from willfit.engines.sglang.eras import NEWEST
from willfit.engines.sglang.lora import DEFAULT_RANK
from willfit.engines.sglang.models import support
from willfit.engines.sglang.refusals import undivided
from willfit.engines.sglang.settings import Settings
from willfit.engines.sglang.sizing import Sizing, size_up
from willfit.engines.sglang.sources import SOURCES
from willfit.engines.solving import largest
from willfit.engines.support import model_note
from willfit.estimate import Capacity, Demand, DeviceEstimate, Estimate, Term, combined, exact
from willfit.quantities import GB, GIB

NAME = "sglang"

#: Rounding of a suggested context, so that it is a number that people would type.
_CONTEXT_STEP = 256

#: The longest sequence, and the most sequences, that are looked at.
_LONGEST, _MOST = 2**24, 2**20


def settings_for(subject: Subject, machine: Machine, question: Question) -> Settings:
    """SGLang with as many tensor-parallel ranks as the model divides over, the rest of the devices in pipeline."""
    devices = len(machine.devices)
    settings = Settings(
        version=question.version or NEWEST,
        kv_cache_dtype=question.kv_dtype,
        context_length=question.context_for(subject.architecture),
        is_embedding=subject.embeds,
    )
    sizes = (size for size in range(devices, 0, -1) if devices % size == 0)
    layouts = (replace(settings, tp_size=size, pp_size=devices // size) for size in sizes)
    return next((one for one in layouts if not undivided(subject.architecture, one)), settings)


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """The estimate with the settings that the question means."""
    return estimate(subject, machine, settings_for(subject, machine, question), question.users)


def estimate(subject: Subject, machine: Machine, settings: Settings, users: int = 1) -> Estimate:
    """What SGLang would allocate on each device, and whether it would start and hold the workload.

    Parameters
    ----------
    subject
        The model as stored.
    machine
        At least as many devices as there are ranks.
    settings
        Under SGLang's own names.
    users
        Sequences of `context_length` tokens that shall run at once, over all replicas.

    Raises
    ------
    BadInput
        If there are fewer devices than ranks, the length of a sequence is not known, or a dtype does not exist.
    """
    sizing = size_up(subject, machine, settings)
    replicas = settings.dp_size * settings.attn_dp_size
    each = -(-users // replicas)
    terms = (*sizing.before, *sizing.loaded, *_pool_terms(sizing, settings), *sizing.after)
    demand = _demand(sizing, settings, each)
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=settings.version,
        kind="serve",
        devices=tuple(
            DeviceEstimate(device.name, index, device.usable_bytes, terms, _interval(terms, sizing, settings))
            for index, device in enumerate(machine.devices[: settings.ranks])
        ),
        host=_host(machine, sizing, settings),
        capacity=_capacity(sizing, subject.architecture.max_positions),
        demands=(demand,) if demand else (),
        notes=(*subject.notes, *subject.recipe.notes, *_notes(subject, sizing, settings, each)),
        refusal=sizing.refusal,
        remedies=_remedies(subject, sizing, settings, each),
        details={
            "context_length": sizing.resolved.context_length,
            "mem_fraction_static": sizing.resolved.mem_fraction_static,
            "chunked_prefill_size": sizing.resolved.chunk,
            "max_total_num_tokens": sizing.pools.tokens,
            "max_running_requests": sizing.pools.requests,
            "cuda_graph_max_bs": max(sizing.resolved.capture_sizes, default=0),
            "page_size": sizing.pools.page,
            "dtype": sizing.dtype,
            "kv_cache_dtype": sizing.kv_dtype,
            "tensor_parallel": settings.tp_size,
            "pipeline_parallel": settings.pp_size,
            "expert_ranks": settings.ep_size,
            "users": users,
            "era": sizing.resolved.era,
            "min_mem_fraction_static": round(
                sum(term.bytes for term in sizing.loaded) / max(1, sizing.free_bytes), 4
            ),
        },
    )


def _pool_terms(sizing: Sizing, settings: Settings) -> tuple[Term, ...]:
    """The pools, between what they would be if less or more were free."""
    low, high = (sizing.pools_at(size, settings) for size in sizing.available_interval)
    pools, reference = sizing.pools, SOURCES.cite("pools", settings.version)
    found = []
    if pools.state_bytes:
        formula = f"({pools.states} slots + {pools.padding} of padding) x {pools.cells.state} B"
        found.append(
            _between("state_cache", pools.state_bytes, low.state_bytes, high.state_bytes, formula, reference)
        )
    if pools.cells.full:
        formula = f"({pools.tokens} tokens + {pools.page} of padding) x {pools.cells.full} B"
        if pools.cells.window:
            window = f"{pools.window_tokens} window tokens + {pools.page} of padding"
            formula += f" + ({window}) x {pools.cells.window} B"
        if settings.max_total_tokens is None:
            formula = f"{_budget(sizing)} = {formula}"
        found.append(
            _between("kv_cache", pools.cache_bytes, low.cache_bytes, high.cache_bytes, formula, reference)
        )
    return tuple(found)


def _budget(sizing: Sizing) -> str:
    """What the token pools have, as a formula."""
    share, states = sizing.resolved.mem_fraction_static, sizing.pools.state_bytes
    taken = [f"{term.bytes} ({term.name})" for term in sizing.loaded]
    kept = int(share * sizing.free_bytes) - sum(term.bytes for term in sizing.loaded) - sizing.available
    taken += [f"{kept} (kept for images)"] if kept else []
    taken += [f"{states} (state_cache)"] if states else []
    return (
        f"{share:g} (mem_fraction_static) x {sizing.free_bytes} B free before loading - {' - '.join(taken)}"
    )


def _between(name: str, size: int, low: int, high: int, formula: str, reference: str) -> Term:
    return Term(name, size, min(low, size), max(high, size), formula, reference)


def _interval(terms: tuple[Term, ...], sizing: Sizing, settings: Settings) -> tuple[int, int] | None:
    """The pools take what the weights leave of the static share, so only what lies outside it is uncertain."""
    if settings.max_total_tokens is not None or sizing.available <= 0:
        return None
    outside, low, high = combined((*sizing.before, *sizing.after))
    peak = sum(term.bytes for term in terms)
    return peak - (outside - low), peak + (high - outside)


def _demand(sizing: Sizing, settings: Settings, users: int) -> Demand | None:
    """What the users need of the pool that is tightest for them."""
    length = sizing.resolved.context_length
    pools = [sizing.pools, *(sizing.pools_at(size, settings) for size in sizing.available_interval)]
    shares = [pool.shares(length, users) for pool in pools]
    if not shares[0]:
        return None
    tightest = max(range(len(shares[0])), key=lambda index: shares[0][index][1] / max(1, shares[0][index][2]))
    name, need, _ = shares[0][tightest]
    size, low, high = (share[tightest][2] for share in shares)
    short = sizing.available <= 0
    return Demand(
        f"{name} of {users:,} sequence{'s' if users > 1 else ''} of {length:,} tokens",
        need,
        sizing.available if short else size,
        sizing.available_interval[0] if short else min(low, size),
        max(high, size),
    )


def _capacity(sizing: Sizing, limit: int) -> Capacity | None:
    pools, length = sizing.pools, sizing.resolved.context_length
    shares = pools.shares(length, 1)
    if not shares:
        return None
    longest = largest(lambda tokens: pools.excess(tokens, 1), limit or _LONGEST)
    return Capacity(
        kv_cache_tokens=pools.tokens,
        max_context=longest,
        max_concurrency=min(pools.requests, min(have / need for _, need, have in shares)),
    )


def _host(machine: Machine, sizing: Sizing, settings: Settings) -> DeviceEstimate:
    ranks, terms = settings.ranks, []
    if settings.cpu_offload_gb:
        size = int(settings.cpu_offload_gb * GIB) * ranks
        formula = f"{ranks} ranks x {size // ranks} B (--cpu-offload-gb)"
        terms.append(exact("weights", size, formula, SOURCES.cite("offload", settings.version)))
    if settings.enable_hierarchical_cache:
        size = int(settings.hicache_size * GB) or int(settings.hicache_ratio * sizing.pools.cache_bytes)
        formula = f"{ranks} ranks x {size} B, pinned"
        terms.append(exact("kv_cache", size * ranks, formula, SOURCES.cite("host pool", settings.version)))
    return DeviceEstimate("host", 0, machine.host_bytes, tuple(terms))


def _notes(subject: Subject, sizing: Sizing, settings: Settings, users: int) -> list[str]:
    model, version = subject.architecture, settings.version
    notes = model_note("sglang", model, version, support(model, version))
    if settings.pp_size > 1:
        notes.append(
            f"layout: {settings.pp_size} pipeline stages, each of {settings.tp_size} "
            f"device{'s' if settings.tp_size > 1 else ''}"
        )
    if settings.dp_size > 1:
        notes.append(f"{settings.dp_size} replicas; one is shown, the others need as many devices each")
    if 0 < sizing.pools.requests < users:
        notes.append(f"no more than {sizing.pools.requests} requests run at once; the others wait")
    if settings.speculative_algorithm and settings.speculative_algorithm != "NGRAM":
        if sizing.draft is None:
            notes.append("the draft model's own weights and cache are not counted")
        elif not settings.mtp:
            notes.append("the draft model is taken to be one dense layer like the model's")
    if settings.enable_lora and settings.max_lora_rank is None:
        notes.append(f"adapters are taken to have rank {DEFAULT_RANK}: --max-lora-rank says otherwise")
    if sizing.available <= 0:
        least = sum(term.bytes for term in sizing.loaded) / max(1, sizing.free_bytes)
        notes.append(f"SGLang would stop with 'Not enough memory': it needs a static share above {least:.3f}")
    return notes


def _remedies(subject: Subject, sizing: Sizing, settings: Settings, users: int) -> tuple[str, ...]:
    """What would make it fit, if a pool is too small or what is outside it too large."""
    demand, remedies = _demand(sizing, settings, users), []
    length, pools = sizing.resolved.context_length, sizing.pools
    short = demand is not None and demand.verdict != "fits"
    share = _safe_share(sizing)
    current = sizing.resolved.mem_fraction_static
    if 0 < share < current and any(term.name == "cuda_graphs" for term in sizing.after):
        remedies.append(
            f"a smaller static share, so that graphs and activations have room (--mem-fraction-static {share:.2f}), "
            "or no graphs (--disable-cuda-graph)"
        )
    elif short and share > current:
        available = sizing.available + int((share - current) * sizing.free_bytes)
        if available > 0 and sizing.pools_at(available, settings).excess(length, users) <= 0:
            remedies.append(
                f"a larger static share: less need be left free (--mem-fraction-static {share:.2f})"
            )
    if not short:
        return tuple(remedies)
    longest = largest(lambda tokens: pools.excess(tokens, users), length) // _CONTEXT_STEP * _CONTEXT_STEP
    if 0 < longest < length:
        each = f" for each of {users} users" if users > 1 else ""
        remedies.append(f"a context of {longest:,} tokens{each} (--context-length {longest})")
    fitting = largest(lambda count: pools.excess(length, count), min(users, _MOST))
    if 1 <= fitting < users:
        remedies.append(f"{fitting} user{'s' if fitting > 1 else ''} at {length:,} tokens")
    if sizing.available > 0 and settings.kv_cache_dtype == "auto" and not sizing.kv_dtype.startswith("fp8"):
        remedies.append("an 8-bit cache, half the bytes for each token (--kv-cache-dtype fp8_e4m3)")
    if subject.recipe.name in ("bf16", "fp16", "fp32"):
        remedies.append("quantized weights: --format fp8 halves them, awq or nvfp4 quarters them")
    remedies.append(f"{2 * settings.ranks} devices (--tp-size {2 * settings.tp_size})")
    return tuple(remedies)


def _safe_share(sizing: Sizing) -> float:
    """The largest static share, in percent, that leaves room for everything that comes after the pools."""
    if sizing.free_bytes <= 0:
        return 0.0
    *_, outside = combined(sizing.after)
    return max(0, int(100 * (1 - outside / sizing.free_bytes))) / 100
