"""Ollama's settings under their own names, and what it makes of those that the user leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from willfit.engines.base import Machine
from willfit.engines.ollama.eras import NEWEST, Era, era_for
from willfit.engines.ollama.facts import Facts, Vision
from willfit.engines.ollama.graph import CACHE_BYTES
from willfit.engines.ollama.habits import (
    FLASH_ATTENTION,
    NO_FLASH_ATTENTION,
    ON_REQUEST,
    OWN_ENGINE,
    PLAIN_CACHE,
    SINGLE,
    holds,
)
from willfit.engines.ollama.placement import Room
from willfit.engines.ollama.stored import AS_CONVERTED, Stored
from willfit.hardware.device import Device
from willfit.quantities import GIB, MIB

#: What runs a model: llama.cpp linked into Ollama, Ollama's own engine, or llama.cpp's server.
Runner = Literal["llama-runner", "ollama-engine", "llama-server"]

#: What is set aside on each device for the driver (`ml/device.go: MinimumMemory`).
_MINIMUM, _METAL_MINIMUM = 457 * MIB, 512 * MIB

#: Batch of a model of text, and of one of vectors under llama-server (`llm/llama_server.go`).
_BATCH, _EMBEDDING_BATCH = 512, 2048

#: Least context of any model, and of one that sees images (`server/sched.go: GetRunner`).
_LEAST_CONTEXT, _VISION_CONTEXT = 4, 2048

#: Architectures with flash attention although only some layers have heads (`fs/ggml/ggml.go: SupportsFlashAttention`).
_HYBRIDS = frozenset({"qwen35", "qwen35moe", "qwen3next"})

#: Default context by the memory of all devices, from 0.15.5 on (`server/routes.go`).
_CONTEXTS = ((47 * GIB, 262144), (23 * GIB, 32768), (0, 4096))

#: Seconds that a model stays loaded after its last answer (`envconfig/config.go: KeepAlive`).
KEEP_ALIVE = 300.0


@dataclass(frozen=True, slots=True)
class Settings:
    """What Ollama is told; None leaves the choice to Ollama.

    Attributes
    ----------
    num_ctx, num_batch, num_gpu, main_gpu, use_mmap, use_mlock, num_thread, draft_num_predict
        Parameters of a model or a request. `num_gpu` counts layers with the output as one more; negative for as many as
        fit.
    num_parallel, kv_cache_type, flash_attention, context_length, gpu_overhead, max_loaded_models, sched_spread,
    keep_alive, llm_library, new_engine, new_estimates, fit, fit_target_mib
        What variables of the server set: OLLAMA_NUM_PARALLEL and so on, LLAMA_ARG_FIT and LLAMA_ARG_FIT_TARGET.
        `keep_alive` is in seconds: 0 unloads at once, negative never.
    adapters, adapter_bytes
        LoRA adapters by name, and their bytes where these are known.
    projector_bytes
        Bytes of a projector in a file of its own, if one is given.
    encoder
        The model's image encoder, where that is known beforehand.
    stored
        In what Ollama's own file of the model differs from what llama.cpp's converter makes.
    """

    version: str = NEWEST
    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    use_mmap: bool | None = None
    use_mlock: bool = False
    num_thread: int | None = None
    draft_num_predict: int | None = None
    num_parallel: int | None = None
    kv_cache_type: str | None = None
    flash_attention: bool | None = None
    context_length: int | None = None
    gpu_overhead: int = 0
    max_loaded_models: int | None = None
    sched_spread: bool = False
    keep_alive: float | None = None
    llm_library: str | None = None
    new_engine: bool = False
    new_estimates: bool = False
    fit: bool | None = None
    fit_target_mib: int | None = None
    adapters: tuple[str, ...] = ()
    adapter_bytes: int = 0
    projector_bytes: int = 0
    encoder: Vision | None = None
    stored: Stored = AS_CONVERTED


@dataclass(frozen=True, slots=True)
class Resolved:
    """What Ollama decides before it places anything.

    Attributes
    ----------
    era
        How the version behaves.
    runner
        What runs the model.
    context
        Tokens of a sequence.
    parallel
        How many sequences at once are tried, the most wanted first.
    batch
        Tokens that are computed at once; 0 where it depends on what is free.
    flash
        Flash attention: on, off, or left to llama.cpp.
    cache_type
        Type of the cache.
    requested
        Layers that shall go to devices; negative for as many as fit.
    overhead
        Bytes of each device that are left alone.
    rooms
        The devices that may be used, those with most memory first; none where only the processor may be used.
    metal, cuda
        They are Apple's; NVIDIA's.
    """

    era: Era
    runner: Runner
    context: int
    parallel: tuple[int, ...]
    batch: int
    flash: Literal["on", "off", "auto"]
    cache_type: str
    requested: int
    overhead: int
    rooms: tuple[Room, ...]
    metal: bool
    cuda: bool


def runner_of(facts: Facts, settings: Settings) -> Runner:
    """What runs a model (`llm/server.go: NewLlamaServer`). A projector in a file of its own needs llama.cpp."""
    if era_for(settings.version).placing == "fit":
        return "llama-server"
    own = holds(OWN_ENGINE, facts.architecture, settings.version)
    own = own or (settings.new_engine and holds(ON_REQUEST, facts.architecture, settings.version))
    return "ollama-engine" if own and not facts.projector_bytes else "llama-runner"


def resolve(facts: Facts, machine: Machine, settings: Settings) -> Resolved:
    """Fill in defaults (`server/routes.go`, `server/sched.go`, `llm/server.go`)."""
    era = era_for(settings.version)
    runner = runner_of(facts, settings)
    without = settings.num_gpu == 0 and runner != "llama-server"
    on_processor = without or (settings.llm_library or "").startswith("cpu")
    rooms = () if on_processor else _rooms(machine.devices)
    flash = _flash(facts, machine, settings, era, runner)
    context = _context(facts, machine, settings, era)
    batch = settings.num_batch or _BATCH
    if runner == "llama-server" and settings.num_batch is None:
        batch = min(_EMBEDDING_BATCH, context) if facts.embeds else 0
    return Resolved(
        era=era,
        runner=runner,
        context=context,
        parallel=_parallel(facts, settings, era),
        batch=batch,
        flash=flash,
        cache_type=_cache_type(facts, settings, era, runner, flash),
        requested=-1 if settings.num_gpu is None else settings.num_gpu,
        overhead=settings.gpu_overhead if era.gpu_overhead and era.placing != "fit" else 0,
        rooms=rooms,
        metal=any(device.vendor == "Apple" for device in machine.devices),
        cuda=any(device.vendor == "NVIDIA" for device in machine.devices),
    )


def _rooms(devices: tuple[Device, ...]) -> tuple[Room, ...]:
    """Devices that hold layers, those with most free memory first."""
    found = [device for device in devices if not device.is_cpu]
    rooms = [
        Room(index, device.usable_bytes, _METAL_MINIMUM if device.vendor == "Apple" else _MINIMUM)
        for index, device in enumerate(found)
    ]
    return tuple(sorted(rooms, key=lambda room: -room.bytes))


def _context(facts: Facts, machine: Machine, settings: Settings, era: Era) -> int:
    named = settings.num_ctx or settings.context_length
    if not named:
        named = era.context or _context_by_memory(machine, settings)
    named = max(named, _LEAST_CONTEXT)
    if facts.vision is not None:
        named = max(named, _VISION_CONTEXT)
    return min(named, facts.context) if era.caps_context and facts.context else named


def _context_by_memory(machine: Machine, settings: Settings) -> int:
    """A default that grows with the memory of all devices."""
    total = sum(
        (device.reported_bytes or device.usable_bytes or 0) - settings.gpu_overhead
        for device in machine.devices
        if not device.is_cpu
    )
    return next(tokens for least, tokens in _CONTEXTS if total >= least or not least)


def _parallel(facts: Facts, settings: Settings, era: Era) -> tuple[int, ...]:
    single = holds(SINGLE, facts.architecture, settings.version) or (
        era.single_projector and facts.projector_bytes > 0
    )
    if single or facts.embeds:
        return (1,)
    if settings.num_parallel:
        return (settings.num_parallel,)
    return (era.parallel, 1) if era.parallel > 1 else (1,)


def _flash(
    facts: Facts, machine: Machine, settings: Settings, era: Era, runner: Runner
) -> Literal["on", "off", "auto"]:
    wanted = settings.flash_attention
    supported = all(_has_flash(device, runner) for device in machine.devices)
    if runner == "llama-server":
        return ("on" if wanted else "off") if wanted is not None else "auto" if supported else "off"
    if runner == "llama-runner" and era.auto_flash and wanted is None:
        return "auto"
    if wanted is None:
        wanted = holds(FLASH_ATTENTION, facts.architecture, settings.version)
    if era.cache_types:
        keys, values = _head_widths(facts)
        fitting = not facts.embeds and not holds(NO_FLASH_ATTENTION, facts.architecture, settings.version)
        hybrid = facts.architecture in _HYBRIDS
        supported = supported and fitting and (hybrid or (bool(keys) and keys == values))
    return "on" if wanted and supported else "off"


def _has_flash(device: Device, runner: Runner) -> bool:
    """Whether Ollama thinks that a device can do flash attention (`ml/device.go: FlashAttentionSupported`)."""
    if device.vendor in ("NVIDIA", ""):
        generation = device.compute_capability
        return runner != "llama-server" or not generation or (float(generation) >= 6 and generation != "7.2")
    return device.vendor in ("AMD", "Apple") or device.is_cpu


def _head_widths(facts: Facts) -> tuple[int, int]:
    return facts.key_length or facts.head_width, facts.value_length or facts.head_width


def _cache_type(facts: Facts, settings: Settings, era: Era, runner: Runner, flash: str) -> str:
    wanted = (settings.kv_cache_type or "f16").lower()
    if runner == "llama-server":
        return wanted
    plain = holds(PLAIN_CACHE, facts.architecture, settings.version)
    known = era.cache_types and wanted in CACHE_BYTES and not plain
    return wanted if known and flash == "on" else "f16"
