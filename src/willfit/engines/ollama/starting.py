"""What Ollama starts llama.cpp with: the linked one up to 0.24, and llama-server from 0.30 on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from willfit.engines.base import Machine
from willfit.engines.llama_cpp.settings import Drafting
from willfit.engines.llama_cpp.settings import Settings as LlamaCpp
from willfit.engines.ollama.estimating import Estimated
from willfit.engines.ollama.facts import Facts
from willfit.engines.ollama.placement import Room
from willfit.engines.ollama.settings import Resolved, Settings
from willfit.quantities import GB, GIB, MIB

#: Generation batches that are tried from contexts of so many tokens on, with what each is expected to take beyond the
#: model, and at most which part of free memory the model may take (`server/sched.go: automaticGenerationBatch`).
_BATCHES: tuple[tuple[int, int, int, float], ...] = (
    (2048, 32769, 2 * GIB, 0.6),
    (1024, 4097, 768 * MIB, 0.75),
)
_LEAST_BATCH, _CONSTRAINED_BATCH = 512, 256
#: Devices with no more than this are constrained where there is no flash attention.
_CONSTRAINED_BYTES, _CONSTRAINED_CONTEXT = 8 * GIB, 4096
#: The part of free memory that a prediction may fill.
_FILLED = 0.8
#: Bytes that llama-server is told to leave free beside a projector (`mmprojOffloadHeadroom`).
_HEADROOM = GIB
#: RAM that must stay free if a file is to be mapped: so much, and a part of all (`mmapHostPressureHeadroom`).
_HOST_HEADROOM, _HOST_PART = 8 * GB, 0.1


@dataclass(frozen=True, slots=True)
class Served:
    """What llama-server is started with.

    Attributes
    ----------
    rooms
        The devices that it may use, in the machine's order.
    batch
        Tokens that are computed at once.
    predicted
        Bytes that Ollama predicts.
    projector_on_device
        Whether images are encoded on a device.
    """

    rooms: tuple[Room, ...]
    batch: int
    predicted: int
    projector_on_device: bool


def linked(
    facts: Facts, settings: Settings, resolved: Resolved, estimated: Estimated, machine: Machine
) -> LlamaCpp:
    """The linked llama.cpp's parameters (`llm/server.go`, `llama/llama.go: NewContextParams`)."""
    era = resolved.era
    used = sorted(
        (room.index, count)
        for room, count in zip(estimated.rooms, estimated.placed.counts, strict=True)
        if count
    )
    count = estimated.placed.layers
    # What is asked for is passed on as it is, whatever the estimate says.
    layers = settings.num_gpu if settings.num_gpu is not None and settings.num_gpu >= 0 else count
    return LlamaCpp(
        program="api",
        version=era.llama_cpp,
        backend=None if used else "cpu",
        n_ctx=estimated.cells,
        n_parallel=estimated.parallel,
        n_batch=resolved.batch * estimated.parallel,
        n_ubatch=resolved.batch if era.ubatch else None,
        flash_attn=resolved.flash,
        cache_type_k=resolved.cache_type,
        cache_type_v=resolved.cache_type,
        n_gpu_layers=layers if used else 0,
        main_gpu=settings.main_gpu or 0,
        tensor_split=tuple(float(share) for _, share in used),
        devices=tuple(index for index, _ in used),
        mmap=_maps(settings, resolved, estimated, machine),
        mlock=settings.use_mlock,
        # Ollama builds ggml without it, and llama.cpp's library keeps whole sequences unless it is told not to.
        repack=False,
        swa_full=True,
        embeddings=True,
        logits_beside=True,
        lora=settings.adapters,
        lora_bytes=settings.adapter_bytes,
        mmproj_bytes=facts.vision.total if facts.vision else 0,
        mmproj_offload=bool(used),
        n_threads=settings.num_thread,
    )


def _maps(settings: Settings, resolved: Resolved, estimated: Estimated, machine: Machine) -> bool:
    """Whether the linked llama.cpp maps the file."""
    whole = len(estimated.load.layers) + 1
    if resolved.metal and 0 < estimated.placed.layers < whole and estimated.rooms:
        return False
    if settings.use_mmap is not None:
        return settings.use_mmap
    if resolved.era.maps == "always":
        return True
    if resolved.era.maps == "devices" and not estimated.placed.layers:
        return False
    host = machine.host_bytes
    return resolved.metal or host is None or host >= estimated.placed.full


def served(facts: Facts, settings: Settings, resolved: Resolved, machine: Machine) -> Served:
    """What Ollama decides before it starts llama-server (`server/sched.go`, `llm/llama_server.go`)."""
    cells = resolved.context * resolved.parallel[0]
    predicted = predicted_bytes(facts, cells)
    rooms = _chosen(settings, resolved, predicted)
    free = sum(room.bytes for room in rooms)
    batch = resolved.batch or _batch(cells, predicted, free, rooms, resolved)
    return Served(
        tuple(sorted(rooms, key=lambda room: room.index)),
        batch,
        predicted,
        facts.vision is not None and _projector_on_device(facts, settings, resolved, rooms, machine),
    )


def predicted_bytes(facts: Facts, cells: int) -> int:
    """What a model is predicted to take: its file, and a cache of 16-bit elements (`PredictServerVRAM`)."""
    heads = max(facts.heads, default=0)
    width = facts.embedding // heads if heads else 0
    kv_heads = min(facts.kv_heads, default=0) or 1
    return facts.file_bytes + 2 * len(facts.layers) * kv_heads * width * cells * 2


def _chosen(settings: Settings, resolved: Resolved, predicted: int) -> tuple[Room, ...]:
    """The device that holds the model well, else all (`selectLlamaServerPlacement`)."""
    rooms = resolved.rooms
    if settings.sched_spread or settings.main_gpu is not None:
        return rooms
    return next(((room,) for room in rooms if predicted <= room.bytes * _FILLED), rooms)


def _batch(cells: int, predicted: int, free: int, rooms: Sequence[Room], resolved: Resolved) -> int:
    """Tokens of a batch: more with long contexts, if there is room."""
    if resolved.flash == "off" and resolved.cuda:
        constrained = any(room.bytes <= _CONSTRAINED_BYTES for room in rooms)
        return _CONSTRAINED_BATCH if cells > _CONSTRAINED_CONTEXT and constrained else _LEAST_BATCH
    for batch, least, beyond, part in _BATCHES:
        fits = predicted <= min(free * _FILLED, free * part) and beyond <= free * _FILLED - predicted
        if cells >= least and (fits or not free):
            return batch
    return _LEAST_BATCH


def _projector_on_device(
    facts: Facts, settings: Settings, resolved: Resolved, rooms: Sequence[Room], machine: Machine
) -> bool:
    if not rooms or (settings.num_gpu is not None and 0 <= settings.num_gpu < len(facts.layers) + 1):
        return False
    era, size = resolved.era, facts.vision.total if facts.vision else 0
    if any(device.unified_memory for device in machine.devices):
        holding = era.projector_shared == "all" or (era.projector_shared == "metal" and resolved.metal)
        if not holding:
            return False
    if era.projector_beside:
        return all(room.bytes >= size + era.projector_room for room in rooms)
    return all(room.bytes > era.projector_room for room in rooms)


def server(
    facts: Facts, settings: Settings, resolved: Resolved, chosen: Served, machine: Machine
) -> LlamaCpp:
    """llama-server's parameters."""
    parallel = resolved.parallel[0]
    projector = facts.vision.total if facts.vision else 0
    target = settings.fit_target_mib
    if target is None and chosen.projector_on_device and resolved.era.projector_target:
        target = -(-(projector + _HEADROOM) // MIB)
    drafted = settings.draft_num_predict or 0
    shared = any(device.unified_memory and device.vendor in ("NVIDIA", "AMD") for device in machine.devices)
    direct = resolved.era.direct_io and shared
    return LlamaCpp(
        program="server",
        version=resolved.era.llama_cpp,
        backend=None if chosen.rooms else "cpu",
        n_ctx=resolved.context * parallel,
        n_parallel=parallel,
        n_batch=chosen.batch,
        n_ubatch=chosen.batch,
        flash_attn=resolved.flash,
        cache_type_k=resolved.cache_type,
        cache_type_v=resolved.cache_type,
        n_gpu_layers=settings.num_gpu if settings.num_gpu is not None and settings.num_gpu >= 0 else None,
        split_mode="none" if settings.main_gpu is not None else None,
        main_gpu=settings.main_gpu or 0,
        devices=tuple(room.index for room in chosen.rooms),
        mmap=not direct and _server_maps(facts, settings, resolved, chosen, machine),
        direct_io=direct,
        fit=settings.fit,
        fit_target_mib=() if target is None else (target,),
        embeddings=facts.embeds,
        lora=settings.adapters,
        lora_bytes=settings.adapter_bytes,
        mmproj_bytes=facts.vision.total if facts.vision else 0,
        mmproj_offload=chosen.projector_on_device,
        drafting=Drafting("mtp", drafted) if drafted > 0 and facts.draft_layers else None,
        n_threads=settings.num_thread,
    )


def _server_maps(
    facts: Facts, settings: Settings, resolved: Resolved, chosen: Served, machine: Machine
) -> bool:
    """Whether llama-server maps the file (`disableMmapDefaultReason`, `disableMmapForHostPressure`)."""
    if settings.use_mmap is not None:
        return settings.use_mmap
    if not chosen.rooms or settings.num_gpu == 0:
        return False
    free = sum(room.bytes for room in chosen.rooms)
    if resolved.metal:
        wanted = settings.num_gpu
        partial = wanted is not None and 0 < wanted < len(facts.layers) + 1
        return not partial and (wanted is not None or chosen.predicted <= free)
    host = machine.host_bytes
    shared = any(device.unified_memory for device in machine.devices)
    if host is None or shared or chosen.predicted > free * _FILLED:
        return True
    return host >= facts.file_bytes + max(_HOST_HEADROOM, host * _HOST_PART)
