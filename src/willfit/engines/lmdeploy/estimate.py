"""LMDeploy's start-up as an estimate: terms for each device, what the cache holds, what would make it fit."""

from __future__ import annotations

from willfit.architectures.mixers import Attention, LatentAttention, Recurrent
from willfit.engines.base import DEFAULT_CONTEXT, Machine, Question, Subject
from willfit.engines.borrowed import NOTE
from willfit.engines.leftover import device_interval
from willfit.engines.lmdeploy.devices import device_refusal
from willfit.engines.lmdeploy.eras import NEWEST
from willfit.engines.lmdeploy.formats import unread_format
from willfit.engines.lmdeploy.models import support
from willfit.engines.lmdeploy.settings import QUANT_POLICIES, TURBOMIND_POLICIES, Settings, has_turbomind
from willfit.engines.lmdeploy.sizing import Sizing, size_up
from willfit.engines.lmdeploy.sources import SOURCES
from willfit.engines.ranks import most_ranks, undivided_heads
from willfit.engines.remedies import CONTEXT_STEP
from willfit.engines.support import model_note, model_refusal, vectors_note
from willfit.errors import BadInput
from willfit.estimate import Capacity, DeviceEstimate, Estimate, Term
from willfit.quantities import dtype_name, format_bytes

NAME = "lmdeploy"

#: `--quant-policy` for the dtype of a cache.
_POLICIES = {"int4": 4, "int8": 8, "fp8": 16, "fp8_e4m3": 16, "fp8_e5m2": 17}


def settings_for(subject: Subject, machine: Machine, question: Question) -> Settings:
    """LMDeploy on as many of the devices as the model's heads divide over.

    Raises
    ------
    BadInput
        If LMDeploy has no cache of the dtype that is asked for.
    """
    policy, backend = _policy(question.kv_dtype), None
    if policy not in TURBOMIND_POLICIES:
        backend = "pytorch"
    return Settings(
        version=question.version or NEWEST,
        backend=backend,  # type: ignore[arg-type]
        tp=most_ranks(subject.architecture, len(machine.devices)),
        session_len=question.context_for(subject.architecture),
        quant_policy=policy,
    )


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """The estimate with the settings that the question means."""
    return estimate(subject, machine, settings_for(subject, machine, question), question.users)


def estimate(subject: Subject, machine: Machine, settings: Settings, users: int = 1) -> Estimate:
    """What LMDeploy would allocate on each device, and whether it would start and hold the workload.

    Parameters
    ----------
    subject
        The model as stored.
    machine
        At least `tp` devices.
    settings
        Under LMDeploy's own names.
    users
        Sequences of `session_len` tokens that shall run at once.

    Raises
    ------
    BadInput
        If there are fewer devices than ranks, or a setting is one that LMDeploy does not take.
    """
    sizing = size_up(subject, machine, settings)
    length = settings.session_len or min(
        DEFAULT_CONTEXT, subject.architecture.max_positions or DEFAULT_CONTEXT
    )
    cache = (_cache_term(sizing, settings.version),) if sizing.blocks.bytes else ()
    terms = (*sizing.before, *cache, *sizing.after)
    interval = _interval(terms, sizing)
    refusal = _refusal(subject, machine, settings, sizing)
    demand = sizing.demand(users, length)
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=settings.version,
        kind="serve",
        devices=tuple(
            DeviceEstimate(device.name, index, device.usable_bytes, terms, interval)
            for index, device in enumerate(machine.devices[: sizing.layout.devices])
        ),
        host=DeviceEstimate("host", 0, machine.host_bytes, ()),
        capacity=_capacity(sizing, length, subject.architecture.max_positions) if cache else None,
        demands=(demand,) if cache else (),
        notes=(
            *subject.notes,
            *subject.recipe.notes,
            *_notes(subject, machine, settings, sizing, length, users),
        ),
        refusal=refusal,
        remedies=()
        if refusal or demand.verdict == "fits"
        else _remedies(subject, sizing, settings, length, users),
        details={
            "backend": sizing.backend,
            "session_len": length,
            "max_batch_size": sizing.batch,
            "max_prefill_token_num": sizing.prefill_tokens,
            "cache_max_entry_count": sizing.ratio,
            "num_gpu_blocks": sizing.block_count,
            "block_size": sizing.blocks.length,
            "dtype": sizing.dtype,
            "tensor_parallel": sizing.layout.attention,
            "users": users,
            "era": sizing.era,
        },
    )


def _policy(kv_dtype: str) -> int:
    if kv_dtype in _POLICIES:
        return _POLICIES[kv_dtype]
    if kv_dtype == "auto" or dtype_name(kv_dtype) in ("bf16", "fp16"):
        return 0
    raise BadInput(f"LMDeploy has no cache of {kv_dtype}", "it has int4, int8, fp8 and 16 bits")


def _cache_term(sizing: Sizing, version: str) -> Term:
    size = sizing.block_count * sizing.blocks.bytes
    low, high = sizing.pool_interval
    blocks = f"{sizing.block_count} blocks x {sizing.blocks.bytes} B"
    total = sizing.free_bytes + sum(term.bytes for term in sizing.before)
    others = "".join(f" - {term.bytes} ({term.name})" for term in sizing.before)
    others += f" - {sizing.reserved_bytes} (set aside)" if sizing.reserved_bytes else ""
    if sizing.sensitivity:
        formula = f"({total} B usable{others}) x {sizing.ratio:g} (cache_max_entry_count) = {blocks}"
    else:
        formula = f"{blocks} whatever is free"
    reference = SOURCES.cite(f"cache {sizing.backend}", version)
    return Term("kv_cache", size, max(0, min(low, size)), max(high, size), formula, reference)


def _interval(terms: tuple[Term, ...], sizing: Sizing) -> tuple[int, int] | None:
    """The cache takes its share of what the terms before it leave, so only the rest of their errors remains."""
    if sizing.pool_bytes <= 0 or not sizing.blocks.bytes:
        return None
    return device_interval(terms, sizing.before, sizing.after, sizing.sensitivity)


def _capacity(sizing: Sizing, length: int, limit: int) -> Capacity:
    count = max(0, sizing.block_count - sizing.padding_blocks)
    tokens = count * sizing.blocks.length
    usable = count * sizing.blocks.bytes
    state = sizing.bytes_for(0)
    longest = max(0, usable - state) // sizing.blocks.bytes * sizing.blocks.length
    return Capacity(tokens, min(longest, limit or longest), usable / sizing.bytes_for(length))


def _refusal(subject: Subject, machine: Machine, settings: Settings, sizing: Sizing) -> str:
    """Why LMDeploy would not start, whatever the memory; empty if it would."""
    architecture = subject.architecture
    if refused := device_refusal(subject, sizing.backend, settings.version, machine.devices):
        return refused
    if missing := model_refusal(
        "lmdeploy", architecture, settings.version, support(architecture, settings.version)
    ):
        return missing
    if unread := unread_format(subject, sizing.backend):
        return unread
    if not sizing.blocks.bytes:
        return "LMDeploy cannot size a cache for a model without attention"
    if sizing.backend == "turbomind" and settings.quant_policy not in TURBOMIND_POLICIES:
        return f"TurboMind has no --quant-policy {settings.quant_policy}; it has 0, 4 and 8"
    if sizing.ratio >= 1 and (sizing.backend == "pytorch" or not sizing.era.counts_blocks):
        return f"--cache-max-entry-count is {sizing.ratio:g}; this version takes a share below 1"
    return undivided_heads(architecture, sizing.layout.attention)


def _notes(
    subject: Subject, machine: Machine, settings: Settings, sizing: Sizing, length: int, users: int
) -> list[str]:
    architecture, notes = subject.architecture, vectors_note(subject, "LMDeploy")
    engine = "TurboMind" if sizing.backend == "turbomind" else "LMDeploy's PyTorch engine"
    notes.append(NOTE.format(engine=engine))
    if settings.backend == "turbomind" and not has_turbomind(architecture, settings.version):
        notes.append("TurboMind does not have this model; LMDeploy falls back to its PyTorch engine")
    if sizing.backend == "pytorch":
        notes += model_note(
            "lmdeploy", architecture, settings.version, support(architecture, settings.version)
        )
    if settings.session_len is None:
        notes.append(
            f"without --session-len LMDeploy starts with any cache; {length:,} tokens are asked here"
        )
    if users > sizing.batch:
        notes.append(f"{sizing.batch} sequences run at once (--max-batch-size); the others wait")
    if sizing.prefill_tokens < settings.max_prefill_token_num:
        notes.append(f"memory is short: --max-prefill-token-num falls to {sizing.prefill_tokens}")
    if len(machine.devices) > sizing.layout.devices:
        used = sizing.layout.devices
        notes.append(f"{used} of {len(machine.devices)} devices are used (--tp {settings.tp})")
    if settings.ep > 1 and sizing.backend == "turbomind":
        notes.append("how TurboMind divides what is not experts under --ep is not established")
    if settings.num_draft_tokens and sizing.backend == "turbomind":
        notes.append("TurboMind drafts no tokens; --speculative-num-draft-tokens is set aside")
    known = (Attention, LatentAttention, Recurrent)
    mixers = [mixer for layer, _ in architecture.blocks for mixer in layer.mixers]
    if not all(isinstance(mixer, known) for mixer in mixers):
        notes.append("how LMDeploy lays out the cache of this kind of attention is not established")
    if any(isinstance(mixer, Attention) and mixer.window for mixer in mixers):
        notes.append("window layers take as many blocks as the others")
    return notes


def _remedies(
    subject: Subject, sizing: Sizing, settings: Settings, length: int, users: int
) -> tuple[str, ...]:
    """What would make it fit, if the cache is too small or the weights too large."""
    remedies = []
    usable = sizing.pool_bytes - sizing.padding_blocks * sizing.blocks.bytes
    if sizing.blocks.bytes:
        blocks = (usable // users - sizing.bytes_for(0)) // sizing.blocks.bytes
        longest = blocks * sizing.blocks.length // CONTEXT_STEP * CONTEXT_STEP
        if 0 < longest < length:
            each = f" for each of {users} users" if users > 1 else ""
            remedies.append(f"a context of {longest:,} tokens{each} (--session-len {longest})")
        fitting = usable // sizing.bytes_for(length)
        if 1 <= fitting < users:
            remedies.append(f"{fitting} user{'s' if fitting > 1 else ''} at {length:,} tokens")
    if sizing.pool_bytes > 0 and settings.quant_policy not in QUANT_POLICIES:
        remedies.append("an 8-bit cache, half the bytes for each token (--quant-policy 8)")
    if sizing.sensitivity and sizing.ratio < 0.9 and sizing.pool_bytes > 0:
        spare = format_bytes((0.9 - sizing.ratio) * sizing.free_bytes)
        remedies.append(f"a larger share for the cache, {spare} more (--cache-max-entry-count 0.9)")
    if subject.recipe.name in ("bf16", "fp16", "fp32"):
        remedies.append("quantized weights: --format awq quarters them")
    remedies.append(f"{2 * settings.tp} devices (--tp {2 * settings.tp})")
    return tuple(remedies)
