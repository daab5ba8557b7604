"""Ollama's settings under their own names, and what it makes of those that the user leaves open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from willfit.engines.base import Machine
from willfit.engines.ollama.eras import NEWEST, Era, era_for
from willfit.engines.ollama.facts import Facts
from willfit.engines.ollama.placement import Room
from willfit.hardware.device import Device
from willfit.quantities import GIB, MIB

#: What runs a model: llama.cpp linked into Ollama, Ollama's own engine, or llama.cpp's server.
Runner = Literal["llama-runner", "ollama-engine", "llama-server"]

#: What is set aside on each device for the driver (`ml/device.go: MinimumMemory`).
_MINIMUM, _METAL_MINIMUM = 457 * MIB, 512 * MIB

#: Batch of a model of text, and of one of vectors under llama-server (`llm/llama_server.go`).
_BATCH, _EMBEDDING_BATCH = 512, 2048

#: Least context of a model that sees images.
_VISION_CONTEXT = 2048

#: Default context by the memory of all devices, from 0.15.5 on (`server/routes.go`).
_CONTEXTS = ((47 * GIB, 262144), (23 * GIB, 32768), (0, 4096))

#: Minutes that a model stays loaded after its last answer (`envconfig/config.go: KeepAlive`).
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
    keep_alive, llm_library, new_engine, new_estimates, fit_target_mib
        What variables of the server set: OLLAMA_NUM_PARALLEL and so on, and LLAMA_ARG_FIT_TARGET. `keep_alive` is in
        seconds: 0 unloads at once, negative never.
    adapters, adapter_bytes
        LoRA adapters by name, and their bytes where these are known.
    projector_bytes
        Bytes of a projector in a file of its own.
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
    fit_target_mib: int | None = None
    adapters: tuple[str, ...] = ()
    adapter_bytes: int = 0
    projector_bytes: int = 0


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
        Tokens that are computed at once.
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
    notes: tuple[str, ...] = ()

    @property
    def whole_model(self) -> int:
        return 0


def runner_of(facts: Facts, settings: Settings) -> Runner:
    """What runs a model.

    A projector or an adapter in a file of its own needs llama.cpp.
    """
    era = era_for(settings.version)
    if era.placing == "fit":
        return "llama-server"
    own = facts.architecture in era.own_engine
    own = own or (settings.new_engine and facts.architecture in era.own_engine_on_request)
    return "ollama-engine" if own and not settings.projector_bytes else "llama-runner"
