"""LightLLM's start-up as an estimate: terms for each device, what the slots hold, what would make it fit."""

from __future__ import annotations

from willfit.architectures.mixers import Attention, LatentAttention
from willfit.engines.base import DEFAULT_CONTEXT, Machine, Question, Subject
from willfit.engines.borrowed import NOTE
from willfit.engines.leftover import device_interval
from willfit.engines.lightllm.eras import NEWEST, era_for
from willfit.engines.lightllm.host import host_terms
from willfit.engines.lightllm.models import support
from willfit.engines.lightllm.settings import KV_TYPES, MODES, Settings
from willfit.engines.lightllm.sizing import Sizing, size_up
from willfit.engines.lightllm.sources import SOURCES
from willfit.engines.ranks import Repeats, most_ranks, undivided_heads
from willfit.engines.support import model_refusal, vectors_note
from willfit.engines.versions import parse_version
from willfit.errors import BadInput
from willfit.estimate import Capacity, DeviceEstimate, Estimate, Term
from willfit.formats.ggml import Ggml
from willfit.quantities import dtype_name

NAME = "lightllm"

#: `--llm_kv_type` for the dtype of a cache, and the word of `--mode` before 1.2.
_KV_TYPE_OF = {"int8": "int8kv", "int4": "int4kv", "fp8": "fp8kv_spt", "fp8_e4m3": "fp8kv_spt"}
_MODE_OF = {
    "int8": "ppl_int8kv", "int4": "ppl_int4kv_flashdecoding", "fp8": "offline_calibration_fp8kv",
    "fp8_e4m3": "offline_calibration_fp8kv",
}  # fmt: skip


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """LightLLM on as many of the devices as the model's heads divide over.

    Raises
    ------
    BadInput
        If LightLLM has no cache of the dtype that is asked for.
    """
    architecture, version = subject.architecture, question.version or NEWEST
    settings = Settings(
        version=version,
        tp=most_ranks(architecture, len(machine.devices), _repeats(architecture.model_type)),
        max_req_total_len=question.context_for(architecture),
        llm_kv_type=_kv_type(question.kv_dtype, version, _is_sparse(subject)),
    )
    return estimate(subject, machine, settings, question.users)


def estimate(subject: Subject, machine: Machine, settings: Settings, users: int = 1) -> Estimate:
    """What LightLLM would allocate on each device, and whether it would start and hold the workload.

    Parameters
    ----------
    subject
        The model as stored.
    machine
        At least `tp` devices.
    settings
        Under LightLLM's own names.
    users
        Requests of `max_req_total_len` tokens that shall run at once.

    Raises
    ------
    BadInput
        If there are fewer devices than ranks, or they cannot be divided into so many groups.
    """
    sizing = size_up(subject, machine, settings)
    resolved, length = sizing.resolved, sizing.resolved.length
    cache = (_cache_term(sizing, settings),) if sizing.slot_bytes else ()
    terms = (*sizing.before, *cache, *sizing.after)
    interval = None
    if settings.max_total_token_num is None and sizing.pool_bytes > 0:
        interval = device_interval(terms, sizing.before, sizing.after, 1.0)
    demand = sizing.demand(settings, users)
    refusal = _refusal(subject, machine, settings, sizing)
    return Estimate(
        model=subject.model,
        engine=NAME,
        engine_version=settings.version,
        kind="serve",
        devices=tuple(
            DeviceEstimate(device.name, index, device.usable_bytes, terms, interval)
            for index, device in enumerate(machine.devices[: settings.tp])
        ),
        host=DeviceEstimate(
            "host",
            0,
            machine.host_bytes,
            host_terms(subject.architecture, settings, resolved, sizing.dtype),
        ),
        capacity=Capacity(
            sizing.slots,
            min(sizing.slots, subject.architecture.max_positions or sizing.slots),
            sizing.slots / length,
        ),
        demands=(demand,) if cache else (),
        notes=(*subject.notes, *subject.recipe.notes, *_notes(subject, machine, settings, sizing, users)),
        refusal=refusal,
        remedies=() if refusal or demand.verdict == "fits" else _remedies(subject, sizing, settings, users),
        details={
            "max_req_total_len": length,
            "batch_max_tokens": resolved.batch_max_tokens,
            "running_max_req_size": resolved.requests,
            "mem_fraction": resolved.mem_fraction,
            "max_total_token_num": sizing.slots,
            "dtype": sizing.dtype,
            "tensor_parallel": settings.group_ranks,
            "users": users,
            "era": resolved.era,
        },
    )


def _kv_type(kv_dtype: str, version: str, sparse: bool) -> str:
    """`--llm_kv_type` or `--mode` for the dtype of a cache."""
    if kv_dtype == "auto" or (kv_dtype not in _KV_TYPE_OF and dtype_name(kv_dtype) in ("bf16", "fp16")):
        return "None"
    if kv_dtype not in _KV_TYPE_OF:
        raise BadInput(f"LightLLM has no cache of {kv_dtype}", "it has int4, int8, fp8 and 16 bits")
    if parse_version(version) < (1, 2):
        return _MODE_OF[kv_dtype]
    kind = _KV_TYPE_OF[kv_dtype]
    return "fp8kv_dsa" if sparse and kind.startswith("fp8") else kind


def _cache_term(sizing: Sizing, settings: Settings) -> Term:
    # One slot more is for padding; it is not handed out.
    size = (sizing.slots + 1) * sizing.slot_bytes
    low, high = sizing.pool_interval
    slots = f"({sizing.slots} tokens + 1) x {sizing.slot_bytes} B"
    if settings.max_total_token_num is not None:
        formula = f"{slots} (as asked for)"
    else:
        total = sizing.free_bytes + sum(term.bytes for term in sizing.before)
        others = " - ".join(f"{term.bytes} ({term.name})" for term in sizing.before)
        formula = f"{sizing.resolved.mem_fraction:g} (mem_fraction) x {total} B usable - {others} = {slots}"
    reference = SOURCES.cite("slots", settings.version)
    return Term("kv_cache", size, max(0, min(low, size)), max(high, size), formula, reference)


def _repeats(model_type: str) -> Repeats:
    """Qwen's code repeats key/value heads (`models/qwen2/model.py` and what is built on it)."""
    return "all" if model_type.startswith("qwen") else "none"


def _is_sparse(subject: Subject) -> bool:
    mixers = (mixer for layer, _ in subject.architecture.blocks for mixer in layer.mixers)
    return any(isinstance(mixer, LatentAttention) and mixer.index_dim for mixer in mixers)


def _is_latent(subject: Subject) -> bool:
    mixers = (mixer for layer, _ in subject.architecture.blocks for mixer in layer.mixers)
    return any(isinstance(mixer, LatentAttention) for mixer in mixers)


def _refusal(subject: Subject, machine: Machine, settings: Settings, sizing: Sizing) -> str:
    """Why LightLLM would not start, whatever the memory; empty if it would."""
    architecture, version = subject.architecture, settings.version
    if any(device.is_cpu or device.vendor not in ("NVIDIA", "") for device in machine.devices):
        return "of the devices known here, LightLLM runs on NVIDIA's only"
    found = support(architecture, version)
    if not found.runs:
        return model_refusal("lightllm", architecture, version, found)
    if not sizing.slot_bytes:
        return "LightLLM sizes a cache of keys and values, and this model has none"
    method = "gguf" if isinstance(subject.recipe.base, Ggml) else subject.recipe.method
    if method and settings.quant_type == "none" and method not in era_for(version).methods:
        known = " and ".join(sorted(era_for(version).methods))
        return f"LightLLM {version} does not load {method} checkpoints; it loads {known}"
    known_types = MODES if parse_version(version) < (1, 2) else KV_TYPES
    if settings.llm_kv_type != "None" and settings.llm_kv_type not in known_types:
        return f"LightLLM {version} has no cache {settings.llm_kv_type}"
    if settings.llm_kv_type == "fp8kv_dsa" and not _is_sparse(subject):
        return "fp8kv_dsa is a cache for sparse attention, which this model has not"
    return undivided_heads(architecture, settings.group_ranks, _repeats(architecture.model_type))


def _notes(subject: Subject, machine: Machine, settings: Settings, sizing: Sizing, users: int) -> list[str]:
    resolved = sizing.resolved
    notes = [NOTE.format(engine="LightLLM"), *vectors_note(subject, "LightLLM")]
    each = -(-users // settings.dp)
    if each > resolved.requests:
        notes.append(f"{resolved.requests} requests run at once (--running_max_req_size); the others wait")
    if len(machine.devices) > settings.tp:
        notes.append(f"{settings.tp} of {len(machine.devices)} devices are used (--tp {settings.tp})")
    mixers = [mixer for layer, _ in subject.architecture.blocks for mixer in layer.mixers]
    if any(isinstance(mixer, Attention) and mixer.window for mixer in mixers):
        notes.append("window layers take as many slots as the others")
    quantized = settings.kv_type is not None and settings.llm_kv_type not in ("triton_fp8kv", "fp8kv_dsa")
    if quantized and _is_latent(subject):
        notes.append(f"LightLLM sets {settings.llm_kv_type} aside for latent attention")
    if settings.llm_kv_type in ("fp8kv_sph", "fp8kv_spt"):
        notes.append("an fp8 cache needs --kv_quant_calibration_config_path")
    if settings.draft_models and not any(line.tensor.part == "mtp" for line in subject.lines):
        notes.append("the draft model is not in the checkpoint: its weights are not counted")
    return notes


def _remedies(subject: Subject, sizing: Sizing, settings: Settings, users: int) -> tuple[str, ...]:
    """What would make it fit."""
    remedies, length, slots = [], sizing.resolved.length, sizing.slots
    each = -(-users // settings.dp)
    fitting = min(slots // each, length)
    if sizing.resolved.era.tables_before and sizing.resolved.batch_max_tokens >= slots > DEFAULT_CONTEXT:
        remedies.append(f"shorter batches of prompts (--batch_max_tokens {DEFAULT_CONTEXT})")
    if 0 < fitting < length:
        remedies.append(f"requests of {fitting:,} tokens (--max_req_total_len {fitting})")
    if 1 <= slots // length < each:
        remedies.append(f"{slots // length * settings.dp} at once with {length:,} tokens")
    if settings.llm_kv_type == "None" and sizing.pool_bytes > 0 and not _is_latent(subject):
        flag = "--mode ppl_int8kv" if parse_version(settings.version) < (1, 2) else "--llm_kv_type int8kv"
        remedies.append(f"an 8-bit cache ({flag})")
    if subject.recipe.name in ("bf16", "fp16", "fp32"):
        remedies.append("quantized weights: --format fp8 halves them")
    remedies.append(f"{2 * settings.tp} devices (--tp {2 * settings.tp})")
    return tuple(remedies)
