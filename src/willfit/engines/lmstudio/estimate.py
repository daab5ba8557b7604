"""The answer: what the runtime that LM Studio starts allocates, with what LM Studio sets for it."""

from __future__ import annotations

import re
from dataclasses import replace

from willfit.engines import llama_cpp, mlx
from willfit.engines.base import Machine, Question, Subject
from willfit.engines.lmstudio.eras import NEWEST, Era, Release, era_for, release_of
from willfit.engines.lmstudio.settings import Settings
from willfit.errors import BadInput
from willfit.estimate import Estimate

NAME = "lmstudio"

#: Types of caches for the dtypes that a question can name.
_CACHE_TYPES = {"auto": "f16", "fp16": "f16", "fp32": "f32", "int8": "q8_0", "fp8": "q8_0", "int4": "q4_0"}

#: Bits of MLX's caches by the types of llama.cpp's.
_BITS = {"f16": None, "q8_0": 8, "q4_0": 4}

#: Tokens of a physical batch.
_UBATCH = 512

#: Classes of models that see or hear.
_SEES = re.compile(r"ForConditionalGeneration$")


def answer(subject: Subject, machine: Machine, question: Question) -> Estimate:
    """A model that is loaded for so many predictions at once, which share the context."""
    kind = _CACHE_TYPES.get(question.kv_dtype, question.kv_dtype)
    version = question.version or NEWEST
    usual = era_for(release_of(version)).parallel
    # Without slots, requests wait for each other.
    at_once = question.users if usual > 1 else 1
    settings = Settings(
        version=version,
        context_length=question.context_for(subject.architecture) * at_once,
        parallel=max(at_once, usual),
        flash_attention=True if kind not in ("f16", "f32") else None,
        k_cache_type=kind,
        v_cache_type=kind,
    )
    return estimate(subject, machine, settings, question.users)


def estimate(subject: Subject, machine: Machine, settings: Settings, users: int = 1) -> Estimate:
    """What LM Studio would allocate on each device and in host RAM once a model is loaded.

    Parameters
    ----------
    subject
        The model: with its GGUF header it runs in llama.cpp, else in MLX.
    machine
        The devices and the host.
    settings
        In the words of LM Studio's load configuration.
    users
        Requests that shall run at once.

    Raises
    ------
    BadInput
        If a setting cannot be used, or the model is neither.
    """
    release = release_of(settings.version)
    era = era_for(release)
    if subject.gguf is None:
        made, notes = _in_mlx(subject, machine, settings, release, era, users)
    else:
        made, notes = _in_llama_cpp(subject, machine, settings, release, era, users)
    return replace(
        made,
        engine=NAME,
        engine_version=release.program,
        notes=(*made.notes, *notes),
        details={**made.details, "era": era},
    )


def _in_llama_cpp(
    subject: Subject, machine: Machine, settings: Settings, release: Release, era: Era, users: int
) -> tuple[Estimate, list[str]]:
    about = "" if release.stated else "about "
    notes = [f"LM Studio's runtime {release.runtime} has llama.cpp {about}b{release.build} inside"]
    told = _told(subject, machine, settings, release, era)
    made = llama_cpp.estimate(subject, machine, told, users)
    if settings.gpu_ratio is None and settings.gpu_layers is None and made.verdict == "does_not_fit":
        fitted = replace(told, n_gpu_layers="auto", tensor_split=(), fit=True)
        made = llama_cpp.estimate(subject, machine, fitted, users)
        if era.autofits:
            notes.append("LM Studio may shorten the context, too, where not all fits")
        else:
            notes.append("LM Studio chooses the layers by an estimate of its own; as many as fit are assumed")
    if any(_SEES.search(name) for name in subject.architecture.class_names):
        notes.append(
            "the projector of a model that sees or hears is loaded, too, if it is there; it is not counted"
        )
    return made, notes


def _evenly(machine: Machine) -> tuple[float, ...]:
    """Shares of the devices: as many layers for each, whatever their memory is (`splitStrategy`)."""
    count = sum(not device.is_cpu for device in machine.devices)
    return (1.0,) * count if count > 1 else ()


def _told(
    subject: Subject, machine: Machine, settings: Settings, release: Release, era: Era
) -> llama_cpp.Settings:
    """What llama.cpp is told."""
    ratio = 1.0 if settings.gpu_ratio is None else settings.gpu_ratio
    layers = settings.gpu_layers
    if layers is None and ratio < 1:
        layers = round(ratio * len(subject.architecture.layers))
    vendor = {device.vendor for device in machine.devices if not device.is_cpu}
    flash = settings.flash_attention
    if flash is None:
        usual = era.flash == "all" or (era.flash == "cuda" and vendor <= {"NVIDIA"})
    return llama_cpp.Settings(
        program="server" if era.serves else "api",
        version=f"b{release.build}",
        backend=settings.backend,
        n_ctx=settings.context_length,
        n_parallel=settings.parallel or era.parallel,
        kv_unified=era.serves,
        n_batch=settings.eval_batch_size or era.batch,
        n_ubatch=min(_UBATCH, settings.eval_batch_size or era.batch),
        flash_attn=("auto" if usual else "off") if flash is None else "on" if flash else "off",
        cache_type_k=settings.k_cache_type,
        cache_type_v=settings.v_cache_type,
        n_gpu_layers="all" if layers is None else layers,
        tensor_split=_evenly(machine),
        kv_offload=settings.offload_kv_cache,
        mmap=settings.try_mmap,
        mlock=True,
        swa_full=era.full_windows,
        fit=False,
        drafting=settings.drafting,
    )


def _in_mlx(
    subject: Subject, machine: Machine, settings: Settings, release: Release, era: Era, users: int
) -> tuple[Estimate, list[str]]:
    if settings.k_cache_type not in _BITS:
        raise BadInput(
            f"LM Studio's runtime for MLX has no {settings.k_cache_type} cache", "use --kv-dtype int8 or int4"
        )
    parallel = settings.parallel or era.parallel
    told = mlx.Settings(
        program="server" if parallel > 1 else "generate",
        version=release.mlx,
        prompt_tokens=max(1, settings.context_length - 1),
        kv_bits=_BITS[settings.k_cache_type],
        prefill_step_size=era.chunk,
        decode_concurrency=parallel,
        prompt_concurrency=parallel,
        draft=subject.draft is not None,
    )
    made = mlx.estimate(subject, machine, told, users)
    if any(device.vendor != "Apple" for device in machine.devices):
        made = replace(made, refusal="LM Studio runs models for MLX on Macs alone")
    return made, [f"LM Studio's runtime for MLX has about mlx-lm {release.mlx} inside"]
