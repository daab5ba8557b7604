"""TGI's start-up as an estimate: terms for each device, what the cache holds, what would make it fit."""

from __future__ import annotations

from willfit.architectures.mixers import Attention
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.borrowed import NOTE
from willfit.engines.leftover import device_interval
from willfit.engines.needed_capability import Minima, always
from willfit.engines.ranks import most_ranks, undivided_heads
from willfit.engines.remedies import shorter_or_fewer, weights_fit
from willfit.engines.support import model_refusal, vectors_note
from willfit.engines.tgi.eras import NEWEST, era_for
from willfit.engines.tgi.models import support
from willfit.engines.tgi.settings import Settings, kernels
from willfit.engines.tgi.sizing import Sizing, size_up
from willfit.engines.tgi.sources import SOURCES
from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.estimate import Capacity, DeviceEstimate, Estimate, Term
from willfit.formats.ggml import Ggml

NAME = "tgi"

#: Formats of checkpoints that TGI has no loader for.
_NEVER = frozenset({"aqlm", "bitnet", "exl3", "hqq", "mlc", "mlx", "modelopt", "mxfp4", "quanto", "torchao"})

#: Marlin runs FP8 on Ampere and Ada; on other cards torch decides, which has none before (`layers/fp8.py`).
MINIMA = Minima("TGI", kernels={"fp8": always(80), "fp8 block": always(80)})


def settings_for(subject: Subject, machine: Machine, question: Question) -> Settings:
    """TGI with as many shards as the heads divide over, up to the devices."""
    length = question.context_for(subject.architecture)
    return Settings(
        version=question.version or NEWEST,
        num_shard=most_ranks(subject.architecture, len(machine.devices), "single"),
        kv_cache_dtype=None if question.kv_dtype == "auto" else question.kv_dtype,
        max_total_tokens=length,
        max_input_tokens=max(1, length - 1),
    )


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """The estimate with the settings that the question means."""
    return estimate(subject, machine, settings_for(subject, machine, question), question.users)


def estimate(subject: Subject, machine: Machine, settings: Settings, users: int = 1) -> Estimate:
    """What TGI would allocate on each device, and whether it would start and hold the workload.

    Parameters
    ----------
    subject
        The model as stored.
    machine
        At least as many devices as there are shards.
    settings
        Under the launcher's own names.
    users
        Sequences of `max_total_tokens` tokens that shall run at once.

    Raises
    ------
    BadInput
        If there are fewer devices than shards, or what the model caches is not known.
    """
    refusal = _refusal(subject, machine, settings)
    if refusal:
        # The cache of heads that cannot be divided has no size.
        return _refused(subject, machine, settings, refusal)
    if subject.architecture.encoder:
        raise BadInput("what TGI allocates for encoders is not worked out", "ask with --engine minimum")
    sizing = size_up(subject, machine, settings)
    cache = sizing.cache
    terms = (*sizing.inside, _cache_term(sizing, settings), *sizing.outside)
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=settings.version,
        kind="serve",
        devices=tuple(
            DeviceEstimate(device.name, index, device.usable_bytes, terms, _interval(terms, sizing))
            for index, device in enumerate(machine.devices[: settings.num_shard])
        ),
        host=DeviceEstimate("host", 0, machine.host_bytes, ()),
        capacity=Capacity(
            cache.tokens(sizing.pool_bytes),
            cache.longest(sizing.pool_bytes, subject.architecture.max_positions or sizing.max_total_tokens),
            cache.concurrency(sizing.pool_bytes, sizing.max_total_tokens),
        ),
        demands=(sizing.demand(users),),
        notes=(*subject.notes, *subject.recipe.notes, *_notes(subject, machine, settings)),
        remedies=_remedies(subject, sizing, settings, users),
        details={
            "attention": sizing.kernels,
            "block_size": cache.block,
            "num_blocks": cache.blocks(sizing.pool_bytes)[0],
            "max_batch_prefill_tokens": sizing.prefill_tokens,
            "max_total_tokens": sizing.max_total_tokens,
            "tensor_parallel": settings.num_shard,
            "users": users,
            "era": sizing.era,
        },
    )


def _refused(subject: Subject, machine: Machine, settings: Settings, refusal: str) -> Estimate:
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=settings.version,
        kind="serve",
        devices=tuple(
            DeviceEstimate(device.name, index, device.usable_bytes, ())
            for index, device in enumerate(machine.devices[: settings.num_shard])
        ),
        host=DeviceEstimate("host", 0, machine.host_bytes, ()),
        notes=(*subject.notes, *subject.recipe.notes),
        refusal=refusal,
    )


def _cache_term(sizing: Sizing, settings: Settings) -> Term:
    cache, (count,) = sizing.cache, sizing.cache.blocks(sizing.pool_bytes)
    size = cache.allocated(sizing.pool_bytes)
    low, high = sizing.pool_interval
    blocks = f"{count} blocks x {cache.block} tokens x {cache.pools[0].token_bytes} B"
    others = " - ".join(f"{term.bytes} ({term.name})" for term in sizing.inside)
    allowed = f"{settings.cuda_memory_fraction:g} (cuda_memory_fraction) x {sizing.total_bytes} B usable"
    wiggle = f"{sizing.wiggle:g} (TGI_WIGGLE_ROOM)"
    if sizing.era.share_of == "total":
        formula = f"{allowed} x {wiggle} - {others} = {blocks}"
    else:
        kept = int(sizing.warm_bytes * (1 - sizing.wiggle))
        formula = f"({allowed} - {others}) x {wiggle} + {kept} (the warm-up's blocks) = {blocks}"
    reference = SOURCES.cite("warm-up", settings.version)
    return Term("kv_cache", size, max(0, min(low, size)), max(high, size), formula, reference)


def _interval(terms: tuple[Term, ...], sizing: Sizing) -> tuple[int, int] | None:
    """The cache takes what the others leave, so only what comes after it is uncertain."""
    if sizing.pool_interval[0] == sizing.pool_interval[1]:
        return None
    return device_interval(terms, sizing.inside, sizing.outside, 1.0)


def _refusal(subject: Subject, machine: Machine, settings: Settings) -> str:
    method = "gguf" if isinstance(subject.recipe.base, Ggml) else subject.recipe.method
    model, version = subject.architecture, settings.version
    if missing := model_refusal("tgi", model, version, support(model, version)):
        return missing
    if method in _NEVER or method == "gguf":
        return f"TGI does not load {method} checkpoints; take one in fp8, awq or gptq"
    if refused := MINIMA.refusal(subject, parse_version(version), machine.devices[0]):
        return refused
    if method == "exl2" and settings.num_shard > 1:
        return "TGI does not shard exl2 checkpoints"
    attention = kernels(settings, subject.architecture, machine.devices[0], era_for(settings.version))
    if attention == "flashdecoding" and (settings.kv_cache_dtype or "").startswith("fp8"):
        return "TGI has no 8-bit cache with flashdecoding, which this model needs"
    return undivided_heads(subject.architecture, settings.num_shard, "single")


def _notes(subject: Subject, machine: Machine, settings: Settings) -> list[str]:
    architecture = subject.architecture
    notes = [NOTE.format(engine="TGI"), *vectors_note(subject, "TGI")]
    unused = len(machine.devices) - settings.num_shard
    if unused > 0:
        notes.append(f"{unused} of the devices are not used (--num-shard {settings.num_shard})")
    if support(architecture, settings.version).through:
        notes.append(
            f"TGI has no implementation of {architecture.model_type!r}; it would run that of Transformers, if at all"
        )
    mixers = [mixer for layer, _ in architecture.blocks for mixer in layer.mixers]
    if any(isinstance(mixer, Attention) and mixer.window for mixer in mixers):
        notes.append("TGI keeps all tokens in window layers, too")
    return notes


def _remedies(subject: Subject, sizing: Sizing, settings: Settings, users: int) -> tuple[str, ...]:
    """What would make it fit, if the cache is too small or the weights are too large."""
    loads = weights_fit(sizing.inside, sizing.total_bytes)
    if loads and sizing.demand(users).verdict == "fits":
        return ()
    remedies = []
    if loads:
        remedies += shorter_or_fewer(
            sizing.cache, sizing.pool_bytes, sizing.max_total_tokens, users, "--max-total-tokens"
        )
        if settings.kv_cache_dtype is None and sizing.kernels == "flashinfer":
            remedies.append("an 8-bit cache, half the bytes for each token (--kv-cache-dtype fp8_e4m3fn)")
        if sizing.prefill_tokens >= 2048:
            half = sizing.prefill_tokens // 2
            remedies.append(f"shorter prompts at once (--max-batch-prefill-tokens {half})")
    if subject.recipe.name in ("bf16", "fp16", "fp32"):
        remedies.append("quantized weights: --format fp8 halves them")
    remedies.append(f"{2 * settings.num_shard} devices (--num-shard {2 * settings.num_shard})")
    return tuple(remedies)
