"""TensorRT-LLM's start-up as an estimate: terms for each device, what the cache holds, what would make it fit."""

from __future__ import annotations

from dataclasses import replace

from willfit.architectures.mixers import Attention
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.borrowed import NOTE
from willfit.engines.leftover import device_interval
from willfit.engines.ranks import undivided_heads
from willfit.engines.remedies import shorter_or_fewer, weights_fit
from willfit.engines.support import model_note, model_refusal
from willfit.engines.tensorrt_llm.devices import device_refusal
from willfit.engines.tensorrt_llm.eras import NEWEST, era_for
from willfit.engines.tensorrt_llm.models import support
from willfit.engines.tensorrt_llm.settings import Settings
from willfit.engines.tensorrt_llm.sizing import Sizing, size_up
from willfit.engines.tensorrt_llm.sources import SOURCES
from willfit.errors import BadInput
from willfit.estimate import Capacity, DeviceEstimate, Estimate, Term, exact
from willfit.formats.ggml import Ggml

NAME = "tensorrt-llm"

#: Formats of checkpoints that TensorRT-LLM's PyTorch backend has no loader for.
_NEVER = frozenset(
    {"aqlm", "bitnet", "bitsandbytes", "eetq", "exl2", "exl3", "gguf", "hqq", "mlc", "mlx", "quanto"}
)


def settings_for(subject: Subject, machine: Machine, question: Question) -> Settings:
    """TensorRT-LLM's PyTorch backend with as many tensor-parallel ranks as the heads divide over."""
    devices = len(machine.devices)
    settings = Settings(
        version=question.version or NEWEST,
        kv_cache_dtype=question.kv_dtype,
        max_seq_len=question.context_for(subject.architecture),
    )
    sizes = (size for size in range(devices, 0, -1) if devices % size == 0)
    layouts = (
        replace(settings, tensor_parallel_size=size, pipeline_parallel_size=devices // size) for size in sizes
    )
    return next(layout for layout in layouts if not undivided_heads(subject.architecture, layout.cache_ranks))


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """The estimate with the settings that the question means."""
    return estimate(subject, machine, settings_for(subject, machine, question), question.users)


def estimate(subject: Subject, machine: Machine, settings: Settings, users: int = 1) -> Estimate:
    """What TensorRT-LLM would allocate on each device, and whether it would start and hold the workload.

    Parameters
    ----------
    subject
        The model as stored.
    machine
        At least as many devices as there are ranks.
    settings
        Under TensorRT-LLM's own names.
    users
        Sequences of `max_seq_len` tokens that shall run at once.

    Raises
    ------
    BadInput
        If there are fewer devices than ranks, what the model caches is not known, or the length of a sequence.
    """
    if missing := _missing(subject, settings):
        return _refused(subject, machine, settings, missing)
    if subject.architecture.encoder_only or subject.architecture.encoder:
        raise BadInput(
            "what TensorRT-LLM allocates for encoders is not worked out", "ask with --engine minimum"
        )
    sizing = size_up(subject, machine, settings)
    resolved, cache = sizing.resolved, sizing.cache
    terms = (*sizing.terms, *_state_term(sizing, settings.version), _cache_term(sizing, settings.version))
    ranks = settings.sharding.ranks
    demand = sizing.demand(users)
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=settings.version,
        kind="serve",
        devices=tuple(
            DeviceEstimate(device.name, index, device.usable_bytes, terms, _interval(terms, sizing))
            for index, device in enumerate(machine.devices[:ranks])
        ),
        host=_host(machine, settings),
        capacity=Capacity(
            cache.tokens(sizing.pool_bytes),
            cache.longest(sizing.pool_bytes, subject.architecture.max_positions or resolved.max_seq_len),
            cache.concurrency(sizing.pool_bytes, resolved.max_seq_len),
        ),
        demands=(demand,),
        notes=(*subject.notes, *subject.recipe.notes, *_notes(subject, sizing, settings, users)),
        refusal=device_refusal(subject, machine, settings.version) or _refusal(subject, settings),
        remedies=_remedies(subject, sizing, settings, users),
        details={
            "max_seq_len": resolved.max_seq_len,
            "max_batch_size": resolved.max_batch_size,
            "max_num_tokens": resolved.max_num_tokens,
            "free_gpu_memory_fraction": resolved.free_gpu_memory_fraction,
            "tokens_per_block": resolved.tokens_per_block,
            "blocks": list(cache.blocks(sizing.pool_bytes)),
            "kv_cache_dtype": sizing.kv_dtype,
            "tensor_parallel": settings.cache_ranks,
            "pipeline_parallel": settings.pipeline_parallel_size,
            "users": users,
            "era": resolved.era,
        },
    )


def _state_term(sizing: Sizing, version: str) -> tuple[Term, ...]:
    if not sizing.states_bytes:
        return ()
    sequences = sizing.resolved.max_batch_size
    formula = f"{sequences} sequences x {sizing.states_bytes // sequences} B"
    return (exact("recurrent_state", sizing.states_bytes, formula, SOURCES.cite("states", version)),)


def _cache_term(sizing: Sizing, version: str) -> Term:
    cache, fraction = sizing.cache, sizing.resolved.free_gpu_memory_fraction
    size = cache.allocated(sizing.pool_bytes)
    low, high = sizing.pool_interval
    blocks = " + ".join(
        f"{count} blocks x {cache.block} tokens x {pool.token_bytes} B"
        for count, pool in zip(cache.blocks(sizing.pool_bytes), cache.pools, strict=True)
    )
    if sizing.limited:
        formula = f"{blocks} (as asked for)"
    else:
        others = " - ".join(f"{term.bytes} ({term.name})" for term in sizing.terms)
        states = f" - {sizing.states_bytes} (recurrent_state)" if sizing.states_bytes else ""
        share = f"{fraction:g} (free_gpu_memory_fraction)"
        formula = f"({sizing.total_bytes} B usable - {others}) x {share}{states} = {blocks}"
    reference = SOURCES.cite("budget", version)
    return Term("kv_cache", size, max(0, min(low, size)), max(high, size), formula, reference)


def _interval(terms: tuple[Term, ...], sizing: Sizing) -> tuple[int, int] | None:
    """The cache takes its share of what the other terms leave, so the sum is off by the rest of their error."""
    if sizing.limited or sizing.pool_bytes <= 0:
        return None
    return device_interval(terms, sizing.terms, (), sizing.resolved.free_gpu_memory_fraction)


def _host(machine: Machine, settings: Settings) -> DeviceEstimate:
    terms: tuple[Term, ...] = ()
    if settings.host_cache_size:
        ranks = settings.sharding.ranks
        formula = f"{ranks} ranks x {settings.host_cache_size} B, pinned"
        size = ranks * settings.host_cache_size
        terms = (exact("kv_cache", size, formula, SOURCES.cite("host cache", settings.version)),)
    return DeviceEstimate("host", 0, machine.host_bytes, terms)


def _missing(subject: Subject, settings: Settings) -> str:
    """Why the model is not run at all; a built engine could be of any."""
    model, version = subject.architecture, settings.version
    if (settings.backend or era_for(version).backend) != "pytorch":
        return ""
    return model_refusal("tensorrt_llm", model, version, support(model, version))


def _refused(subject: Subject, machine: Machine, settings: Settings, refusal: str) -> Estimate:
    """The cache of a model that is not run has no size."""
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=settings.version,
        kind="serve",
        devices=tuple(
            DeviceEstimate(device.name, index, device.usable_bytes, ())
            for index, device in enumerate(machine.devices[: settings.sharding.ranks])
        ),
        host=_host(machine, settings),
        notes=(*subject.notes, *subject.recipe.notes),
        refusal=refusal,
    )


def _refusal(subject: Subject, settings: Settings) -> str:
    method = "gguf" if isinstance(subject.recipe.base, Ggml) else subject.recipe.method
    if method in _NEVER:
        return f"TensorRT-LLM does not load {method} checkpoints; take one in fp8, nvfp4 or awq"
    groups = settings.sharding.experts
    if settings.tensor_parallel_size % groups:
        return f"{settings.tensor_parallel_size} ranks cannot be divided into {groups} groups of experts"
    return undivided_heads(subject.architecture, settings.cache_ranks)


def _notes(subject: Subject, sizing: Sizing, settings: Settings, users: int) -> list[str]:
    resolved, notes = sizing.resolved, []
    if settings.pipeline_parallel_size > 1:
        notes.append(
            f"layout: {settings.tensor_parallel_size} tensor-parallel ranks in each of "
            f"{settings.pipeline_parallel_size} pipeline stages"
        )
    if resolved.backend == "tensorrt":
        notes.append(
            "the activations of a built engine were decided when it was built; they are taken to be those of "
            f"{resolved.max_num_tokens:,} tokens"
        )
    else:
        model, version = subject.architecture, settings.version
        notes += model_note("tensorrt_llm", model, version, support(model, version))
        notes.append(NOTE.format(engine="TensorRT-LLM"))
    windows = {
        mixer.window
        for layer, _ in subject.architecture.blocks
        for mixer in layer.mixers
        if isinstance(mixer, Attention)
    }
    if any(windows) and not settings.max_attention_window:
        notes.append(
            "window layers are counted with all tokens; kv_cache_config.max_attention_window, or a cache manager "
            "that derives it, keeps less"
        )
    if sizing.states_bytes:
        notes.append(
            "states are counted for --max_batch_size sequences; those that block reuse keeps for prefixes come on top"
        )
    if settings.draft_layers and not any(line.tensor.part == "mtp" for line in subject.lines):
        notes.append("the draft model is not in the checkpoint: its weights are not counted")
    users = -(-users // settings.groups)
    if users > resolved.max_batch_size:
        notes.append(f"at most {resolved.max_batch_size} sequences run at once (--max_batch_size)")
    return notes


def _remedies(subject: Subject, sizing: Sizing, settings: Settings, users: int) -> tuple[str, ...]:
    """What would make it fit, if the cache is too small or the weights are too large."""
    if sizing.demand(users).verdict == "fits":
        return ()
    resolved, pool, each = sizing.resolved, sizing.pool_bytes, -(-users // settings.groups)
    remedies = shorter_or_fewer(sizing.cache, pool, resolved.max_seq_len, each, "--max_seq_len")
    if pool > 0 and sizing.kv_dtype not in ("nvfp4", "fp8_e4m3"):
        remedies.append("an 8-bit cache, half the bytes for each token (--kv_cache_dtype fp8)")
    smaller = resolved.max_num_tokens // 2
    if smaller >= 1024 and weights_fit(sizing.terms, sizing.total_bytes):
        remedies.append(f"smaller batches of prompts (--max_num_tokens {smaller})")
    if subject.recipe.name in ("bf16", "fp16", "fp32"):
        remedies.append("quantized weights: --format fp8 halves them")
    ranks = settings.sharding.ranks
    remedies.append(f"{2 * ranks} devices (--tp_size {2 * settings.tensor_parallel_size})")
    return tuple(remedies)
